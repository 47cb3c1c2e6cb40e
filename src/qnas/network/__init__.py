"""Networks as plain data: what a search decides, and the layers that follow from it."""
