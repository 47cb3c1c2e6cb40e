"""Writes a found network as an exact integer model, ONNX QDQ or TFLite, and proves that it is exact."""

from qnas.callable_package import make_callable

make_callable(__name__)
