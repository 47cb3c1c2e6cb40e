"""Integer network, or the layers of a float one -> ONNX."""
