"""Checkpoints of the paper's released code."""
