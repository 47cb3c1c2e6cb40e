"""What is inside a found.pt, ONNX or TFLite file."""
