"""The supernet and its search."""
