"""Searched layers as QuantNAS writes them (equations 3 to 6): the oracle of `mixed_layer`.

Every operation quantizes, or noises, its own input and its own weights for every bit width, adds them up with
its shares and convolves with a kernel of its own size; with independent weights once for every bit width.
`benchmarks/search_step.py` measures the search's layers against these.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qnas.network.layers import Layer
from qnas.quantization.quantizers import FLOAT_BITS, WEIGHT_SCALE_BITS, weight_spec
from qnas.search.supernet.bit_mixing import Noise, Reader
from qnas.search.supernet.kernels import Kernels
from qnas.search.supernet.mixed_layer import Candidates, MixedLayer, Window
from qnas.search.supernet.supernet import Supernet
from qnas.torch.fake_quantization import lsq, snap_scale


def mixed(tensors: Sequence[Tensor], shares: Tensor) -> Tensor:
    """`sum_b a_b G_b`; a single bit width has all of it."""
    if len(tensors) == 1:
        return tensors[0]
    total = shares[0] * tensors[0]
    for share, tensor in zip(shares[1:], tensors[1:], strict=True):
        total = total + share * tensor
    return total


def _drawn(x: Tensor, noise: Noise) -> Tensor:
    """Standard normal for all of x [N, C, H, W], channels last as it is."""
    return noise.draw(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class OwnInput(nn.Module):
    """`G(x, b)` of one operation's input; `reader` has the quantizers to start from."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = copy.deepcopy(reader)

    def forward(self, x: Tensor, bits: Sequence[int], noise: Noise) -> list[Tensor]:
        if self.reader.exact:
            return [x] * len(bits)
        if self.reader.mixer == "san":
            span = noise.span(x)
            return [
                x if b == FLOAT_BITS else x + span / (2**b - 1) / 2 * _drawn(x, noise)  # eq. 5
                for b in bits
            ]
        return [x if b == FLOAT_BITS else self.reader.get_submodule(str(b))(x) for b in bits]


class OwnConvolution(nn.Module):
    """Convolution `index` of `kernels` with parameters of its own: weight [O, I / groups, kh, kw], bias [O].

    `scale` [b, O]: LSQ's, for each bit width below 32.
    """

    def __init__(self, kernels: Kernels, index: int, window: Window) -> None:
        super().__init__()
        self.bits, self.mixer, self.window = kernels.bits, kernels.mixer, window
        self.groups = kernels.shapes[index].groups
        self.weight = nn.Parameter(kernels.own(kernels.weight.detach(), index).clone())
        self.bias = nn.Parameter(kernels.bias.detach()[index].clone())
        self.quantized_bits = kernels.quantized_bits
        if hasattr(kernels, "scale"):
            self.scale = nn.Parameter(kernels.scale.detach()[:, index].clone())

    def forms(self, noise: Noise) -> list[Tensor]:
        """`G(W, b)` for every bit width."""
        if self.mixer == "san":
            low, high = self.weight.detach().aminmax()
            return [
                self.weight if b == FLOAT_BITS
                else self.weight + (high - low) / (2**b - 1) / 2 * noise.draw(self.weight)  # eq. 6
                for b in self.bits
            ]  # fmt: skip
        return [self.weight if b == FLOAT_BITS else self._lsq(b) for b in self.bits]

    def _lsq(self, bits: int) -> Tensor:
        scale = snap_scale(self.scale[self.quantized_bits.index(bits)], WEIGHT_SCALE_BITS)
        return lsq(self.weight, scale, weight_spec(bits))

    def forward(self, x: Tensor, shares: Tensor, noise: Noise) -> Tensor:
        weight = mixed(self.forms(noise), shares)
        return self.window.convolve(x, weight, self.bias, self.groups)


class OwnOperation(nn.Module):
    """A chain of convolutions with a ReLU between two, each on its own mixture of bit widths."""

    def __init__(self, candidates: Candidates, index: int, reader: Reader) -> None:
        super().__init__()
        if index in candidates.single_index:
            assert candidates.singles is not None
            kernels = [(candidates.singles, candidates.single_index.index(index))]
            readers = [reader]
        else:
            chain = candidates.chain_index.index(index)
            kernels = [(each, 0) for each in candidates.chains[chain]]  # type: ignore[arg-type, union-attr]
            readers = [reader, *candidates.readers[chain]]  # type: ignore[list-item, misc]
        window = candidates.window if len(kernels) == 1 else Window()
        self.convolutions = nn.ModuleList(OwnConvolution(each, at, window) for each, at in kernels)
        self.inputs = nn.ModuleList(OwnInput(each) for each in readers)

    def forward(self, x: Tensor, shares: Tensor, noise: Noise) -> Tensor:
        for position, (read, convolution) in enumerate(zip(self.inputs, self.convolutions, strict=True)):
            x = F.relu(x) if position else x
            x = convolution(mixed(read(x, convolution.bits, noise), shares), shares, noise)
        return x


class PerOperation(nn.Module):
    """What `layer` computes of an input that it has through `reader`, with parameters copied from both.

    `operations[s][i]`: operation i; independent weights have a list s for each bit width, others one list.
    """

    def __init__(self, layer: MixedLayer, reader: Reader) -> None:
        super().__init__()
        self.operations = nn.ModuleList(
            nn.ModuleList(
                OwnOperation(candidates, index, reader)  # type: ignore[arg-type]
                for index in range(len(candidates.single_index) + len(candidates.chain_index))  # type: ignore[arg-type]
            )
            for candidates in layer.sets
        )

    def forward(self, x: Tensor, probabilities: Tensor, noise: Noise) -> Tensor:
        """x [N, I, H, W], probabilities [O, B] -> [N, O, H, W]."""
        width = probabilities.shape[1] // len(self.operations)  # of a set of weights, in bit widths
        parts = [
            operation(x, own / own.sum(), noise) * own.sum()
            for operations, some in zip(self.operations, probabilities.split(width, 1), strict=True)
            for operation, own in zip(operations, some, strict=True)  # type: ignore[call-overload]
        ]
        return sum(parts[1:], parts[0])


class PerOperationSupernet(Supernet):
    """The same supernet as `source`, computed operation by operation; its parameters are copies."""

    def __init__(self, source: Supernet) -> None:
        super().__init__(source.space, source.mixer, world=source.world)
        self.load_state_dict(source.state_dict())
        for name in self._variable:
            reader = self._readers[self._named[name].inputs[0]]
            self._modules_by_layer[name] = PerOperation(self.module(name), reader)
        for name in self._readers:  # each operation has a copy
            del self.get_submodule(name).reader
        for name in self._variable:
            parent, _, last = name.rpartition(".")
            self.get_submodule(parent).add_module(last, self.module(name))
        self.to(source.alphas[0].device)

    def _run(self, layer: Layer, x: list[Tensor]) -> Tensor:
        if layer.name not in self._variable:
            return super()._run(layer, x)
        probabilities = self._probabilities[self._variable[layer.name]]
        y: Tensor = self.module(layer.name)(x[0], probabilities, self._noise)
        return y * x[1] if len(x) > 1 else y


class Draws:
    """Noise from one generator, in the type and on the device of what it is for."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.counts = {"draw": 0, "draw_image": 0}

    def draw(self, weight: Tensor) -> Tensor:
        self.counts["draw"] += 1
        return torch.randn(weight.shape, generator=self.generator, dtype=weight.dtype)

    def draw_image(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.counts["draw_image"] += 1
        z = torch.randn(1, *x.shape[1:], generator=self.generator, dtype=x.dtype)
        return z, self.signs(x[:, :1, :1, :1])

    def signs(self, like: Tensor) -> Tensor:
        return torch.randint(0, 2, like.shape, generator=self.generator).to(like) * 2 - 1

    def span(self, x: Tensor) -> Tensor:
        low, high = x.detach().aminmax()
        return high - low
