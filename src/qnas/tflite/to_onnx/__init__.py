"""TFLite files as ONNX graphs: floats as floats, integers between quantizers."""
