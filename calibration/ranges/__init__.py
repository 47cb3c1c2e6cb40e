"""Ranges of tensors, from histograms of what patches make of them."""
