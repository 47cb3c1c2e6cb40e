"""Quantization-aware fine-tuning: a calibrated network trained on its integers, taught by its float self."""
