"""The trained network: all that needs torch and is no search."""
