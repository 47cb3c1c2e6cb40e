"""All networks of a space in one: a frame in full precision whose searched layers mix their candidates."""

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor, nn

from qnas.network.layers import Layer, activated, by_name
from qnas.network.lowering import lower
from qnas.network.operations import ConvShape, operation_convolutions
from qnas.search.space.candidate_costs import owns
from qnas.search.space.search_space import SearchSpace
from qnas.search.supernet.bit_mixing import Basis, Mixer, Noise, Reader
from qnas.search.supernet.global_norm import GlobalAffine, GlobalDeviation
from qnas.search.supernet.kernels import largest_kernel
from qnas.search.supernet.mixed_layer import MixedLayer
from qnas.search.supernet.world import World
from qnas.torch.fake_quantization import Quantizer
from qnas.torch.network import Network, attach


class Supernet(Network):
    """Input [N, 3, H, W], output [N, 3, s H, s W], as `qnas.torch.network.Network` has them.

    `alphas` has a parameter [O, B] for each variable of the space, all zero at the start. Layers that read
    the same tensor share what it is at each bit width, quantized (or noised) once a pass.
    """

    def __init__(
        self, space: SearchSpace, mixer: Mixer = "shared", *, merged: bool = False, compiled: bool = False,
        world: World | None = None,
    ) -> None:  # fmt: skip
        self.space, self.mixer, self.world = space, mixer, world or World()
        self.merged, self.compiled = merged, compiled
        layers = lower(space.placeholder)
        slots = {slot: name for name, tied in space.variables.items() for slot in tied}
        self._variable = {
            layer.name: slots[slot]
            for layer in layers
            if layer.op == "conv"
            for slot in slots
            if owns(slot, layer.name)
        }
        super().__init__(layers)
        self.alphas = nn.ParameterList(
            torch.zeros(len(space.candidates(name)), len(space.bits)) for name in space.variables
        )
        named = by_name(layers)
        self._readers: dict[str, Reader] = {}
        for layer in layers:
            if layer.name in self._variable and layer.inputs[0] not in self._readers:
                source = named[layer.inputs[0]]
                image = source.op == "image"
                exact = image and space.first_input == "image"  # on its own grid already
                signed = not (image or activated(named, source.name))
                reader = Reader(space.bits, mixer, signed=signed, exact=exact, compiled=compiled)
                self._readers[source.name] = reader
                attach(self, f"{source.name}.reader", reader)
        self._bases: dict[str, Basis] = {}
        self._probabilities: dict[str, Tensor] = {}
        self._noise: Noise

    def _build(self, layer: Layer) -> nn.Module | None:
        if self.world.size > 1 and layer.op == "affine":
            return GlobalAffine(layer.channels, self.world)
        if self.world.size > 1 and layer.op == "deviation":
            return GlobalDeviation(self.world, layer.form)
        if layer.name not in self._variable:
            return super()._build(layer)
        read = self._named[layer.inputs[0]].channels
        return MixedLayer(
            layer, _chains(self.space, layer, read), self.space.bits, self.mixer, merged=self.merged,
            compiled=self.compiled,
        )  # fmt: skip

    def forward(self, image: Tensor, probabilities: Sequence[Tensor], noise: Noise) -> Tensor:  # type: ignore[override]
        """`probabilities` [O, B] for each variable, in the order of `alphas`."""
        self._probabilities = dict(zip(self.space.variables, probabilities, strict=True))
        self._noise = noise
        try:
            return super().forward(image)
        finally:
            self._bases.clear()
            self._probabilities.clear()

    def _run(self, layer: Layer, x: list[Tensor]) -> Tensor:
        variable = self._variable.get(layer.name)
        if variable is None:
            return super()._run(layer, x)
        source = layer.inputs[0]
        if source not in self._bases:
            self._bases[source] = self._readers[source](x[0], self._noise)
        y: Tensor = self.module(layer.name)(self._bases[source], self._probabilities[variable], self._noise)
        return y * x[1] if len(x) > 1 else y

    def quantizers(self) -> Iterator[Quantizer]:
        """All activation quantizers."""
        return (module for module in self.modules() if isinstance(module, Quantizer))

    def weights(self) -> list[nn.Parameter]:
        """What the weights' optimizer trains."""
        alphas = {id(alpha) for alpha in self.alphas}
        return [p for p in self.parameters() if id(p) not in alphas and p.requires_grad]


def weight_count(space: SearchSpace, mixer: Mixer) -> int:
    """How many weights the searched layers of a `Supernet` have, none of which is made."""
    named = by_name(lower(space.placeholder))
    count = 0
    for layer in named.values():
        if layer.op == "conv" and any(owns(slot, layer.name) for slot in space.slots):
            chains = _chains(space, layer, named[layer.inputs[0]].channels)
            singles = [chain[0] for chain in chains if len(chain) == 1]
            together = [singles] * bool(singles) + [[shape] for c in chains if len(c) > 1 for shape in c]
            for shapes in together:
                weights = prod(largest_kernel(shapes)) * shapes[0].in_channels * shapes[0].out_channels
                count += len(shapes) * weights
    return count * (len(space.bits) if mixer == "independent" else 1)


def _chains(space: SearchSpace, layer: Layer, in_channels: int) -> Sequence[tuple[ConvShape, ...]]:
    """The convolutions of every candidate; a layer inside a slot, as of ESA, is what it is."""
    slots = space.slots
    if layer.name not in slots:
        return [(ConvShape(in_channels, layer.channels, layer.kernel, layer.groups),)]
    width = space.placeholder.inner_width
    return [operation_convolutions(op, in_channels, layer.channels, width) for op in slots[layer.name]]
