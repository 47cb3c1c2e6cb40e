"""Grids, levels and scales, in numpy: the definition that every backend is tested against."""
