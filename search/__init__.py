"""Finds an architecture (operation and bit width of every layer) and trains it quantized into found.pt."""

from qnas.callable_package import make_callable

make_callable(__name__)
