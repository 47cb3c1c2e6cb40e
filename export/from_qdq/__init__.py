"""QDQ ONNX models made elsewhere -> integer network."""
