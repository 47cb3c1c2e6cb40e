"""Runs exported models and measures them: latency, size and image quality; never needs torch."""
