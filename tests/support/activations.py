"""Activations counted as the AIM 2020 table of efficient super-resolution counts them."""

from qnas.cost.network_cost import layer_sizes
from qnas.network.architecture import Architecture
from qnas.network.lowering import lower


def activation_elements(architecture: Architecture, functional: str) -> int:
    """Outputs of the ReLU modules at 256x256, without those whose name ends in `functional`."""
    layers = lower(architecture)
    sizes = layer_sizes(layers, 256, 256)
    relus = [layer for layer in layers if layer.op == "relu" and not layer.name.endswith(functional)]
    return sum(layer.channels * sizes[layer.name][0] * sizes[layer.name][1] for layer in relus)
