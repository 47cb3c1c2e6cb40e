"""Writes a found network as an exact integer model, ONNX QDQ or TFLite, and proves that it is exact."""
