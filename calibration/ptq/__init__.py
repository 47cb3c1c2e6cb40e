"""Ranges -> grids, integer weights and the QDQ model."""
