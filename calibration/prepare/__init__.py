"""A float network from elsewhere, brought into few operations and understood."""
