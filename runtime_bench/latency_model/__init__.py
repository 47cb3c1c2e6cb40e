"""Latency predicted from measured kernels."""
