"""Edits of the integer network, one a file: the same function in a shape that a runtime runs faster."""
