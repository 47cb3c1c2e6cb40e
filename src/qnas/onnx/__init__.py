"""ONNX graphs: building, reading, counting and running them."""
