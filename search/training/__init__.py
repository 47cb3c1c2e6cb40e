"""The training of an architecture."""
