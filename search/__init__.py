"""Finds an architecture (operation and bit width of every layer) and trains it quantized into found.pt."""
