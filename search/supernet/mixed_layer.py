"""One searched layer: all of its candidates at once, weighted by the search's probabilities.

Let `p[i, b]` be the probability of operation i at bit width b, `p[i] = sum_b p[i, b]` and the shares
`a[i, b] = p[i, b] / p[i]`. Equation 4 of QuantNAS (shared weights) and equations 5 and 6 (noise) read

    y = sum_i p[i] * O_i(sum_b a[i, b] G(x, b), sum_b a[i, b] G(W_i, b))

with G quantization or noise. Both mixtures are sums over a few tensors that do not depend on i (`Basis`): the
quantized forms, or x itself and one draw of noise, since a sum of independent Gaussians is one Gaussian. A
convolution is linear in both, so all candidates that are single convolutions become one convolution for each
tensor of the basis, whose kernel is a weighted sum of theirs, embedded in the largest (that of a draw has one
image for a whole batch):

    y = sum_j conv(T_j, sum_i p[i] c[i, j] W~_i)

This is exact: a sum taken in another order. `merged` takes the marginal shares `sum_i p[i, b]` for all
candidates of a layer instead of their own, in the inputs only: then one convolution is enough.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qnas.network.layers import Layer
from qnas.network.operations import ConvShape
from qnas.search.supernet.bit_mixing import Basis, Exact, Mixer, Noise, Reader
from qnas.search.supernet.kernels import Kernels


@dataclass(frozen=True)
class Window:
    """How the convolutions of a layer move; `padding` None keeps the size."""

    stride: int = 1
    padding: tuple[int, int] | None = None

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1) -> Tensor:
        """`conv(x, weight) + bias`."""
        same = (weight.shape[2] // 2, weight.shape[3] // 2)
        return F.conv2d(
            x, weight, bias, self.stride, same if self.padding is None else self.padding, 1, groups
        )


class Candidates(nn.Module):
    """All operations of a layer, with weights that the bit widths share.

    Single convolutions stand first, in one `Kernels`; chains have a `Kernels` for each convolution and a
    reader between two.
    """

    def __init__(
        self, chains: Sequence[tuple[ConvShape, ...]], bits: tuple[int, ...], mixer: Mixer, window: Window, *,
        merged: bool, compiled: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.window, self.merged = window, merged
        self.single_index = [i for i, chain in enumerate(chains) if len(chain) == 1]
        self.chain_index = [i for i, chain in enumerate(chains) if len(chain) > 1]
        self.singles = None
        if self.single_index:
            self.singles = Kernels([chains[i][0] for i in self.single_index], bits, mixer)
        self.chains = nn.ModuleList(
            nn.ModuleList(Kernels([shape], bits, mixer) for shape in chains[i]) for i in self.chain_index
        )
        self.readers = nn.ModuleList(
            nn.ModuleList(Reader(bits, mixer, signed=False, compiled=compiled) for _ in chains[i][1:])
            for i in self.chain_index
        )

    def shrink(self, factor: float) -> None:
        """Multiply the weights that write the layer's output."""
        if self.singles is not None:
            self.singles.shrink(factor)
        for chain in cast(Iterable[Sequence[Kernels]], self.chains):
            chain[-1].shrink(factor)

    def forward(self, basis: Basis, probabilities: Tensor, noise: Noise) -> Tensor:
        """Probabilities [O, B] -> the weighted sum of all candidates."""
        total = probabilities.sum(1)
        shares = probabilities / total.clamp(min=torch.finfo(total.dtype).tiny).unsqueeze(1)
        common = None
        if self.merged:
            marginal = probabilities.sum(0)
            common = basis.mixed(marginal / marginal.sum())
        parts = list(self._chains(basis, common, total, shares, noise))
        if self.singles is not None:
            parts += self._singles(self.singles, basis, common, total, shares, noise)
        return sum(parts[1:], parts[0])

    def _singles(
        self,
        kernels: Kernels,
        basis: Basis,
        common: Tensor | None,
        total: Tensor,
        shares: Tensor,
        noise: Noise,
    ) -> Iterator[Tensor]:
        total, shares = total[self.single_index], shares[self.single_index]
        weight = kernels.mixed(shares, noise)
        bias = total @ kernels.bias
        if common is not None:
            yield self.window.convolve(common, torch.einsum("s,soikl->oikl", total, weight), bias)
        elif kernels.joined_is_less(basis.batches):
            joined = torch.einsum("s,sj,soikl->joikl", total, basis.weights(shares), weight)
            biases = [bias, *[None] * (len(joined) - 1)]
            parts = zip(basis.tensors, joined, biases, strict=True)
            yield basis.total([self.window.convolve(*part) for part in parts])
        else:
            for index, shape in enumerate(kernels.shapes):
                kernel = kernels.own(weight, index) * total[index]
                read = basis.mixed(shares[index])
                yield self.window.convolve(read, kernel, bias if index == 0 else None, shape.groups)

    def _chains(
        self, basis: Basis, common: Tensor | None, total: Tensor, shares: Tensor, noise: Noise
    ) -> Iterator[Tensor]:
        chains = cast(Iterable[Sequence[Kernels]], self.chains)
        all_readers = cast(Iterable[Sequence[Reader]], self.readers)
        for index, chain, readers in zip(self.chain_index, chains, all_readers, strict=True):
            own = shares[index]
            x = basis.mixed(own) if common is None else common
            for position, kernels in enumerate(chain):
                last = position == len(chain) - 1
                factor = total[index] if last else 1.0
                weight, bias = kernels.mixed(own.unsqueeze(0), noise)[0], kernels.bias[0]
                x = F.conv2d(x, weight * factor, bias * factor, padding=[k // 2 for k in kernels.kernel])
                if not last:
                    x = readers[position](F.relu(x), noise).mixed(own)
            yield x


class MixedLayer(nn.Module):
    """A searched layer: `Candidates` of all bit widths, or of each where weights are independent (eq. 3)."""

    def __init__(
        self, layer: Layer, chains: Sequence[tuple[ConvShape, ...]], bits: tuple[int, ...], mixer: Mixer, *,
        merged: bool, compiled: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        window = Window(layer.stride, layer.padding if layer.stride > 1 else None)
        sets = [(b,) for b in bits] if mixer == "independent" else [bits]
        self.sets = nn.ModuleList(
            Candidates(chains, each, mixer, window, merged=merged, compiled=compiled) for each in sets
        )

    def shrink(self, factor: float) -> None:
        """Multiply the weights that write the layer's output."""
        for each in cast(Iterable[Candidates], self.sets):
            each.shrink(factor)

    def forward(self, basis: Basis, probabilities: Tensor, noise: Noise) -> Tensor:
        """`basis` of the input [N, I, H, W], probabilities [O, B] -> [N, O, H, W]."""
        if len(self.sets) == 1:
            whole: Tensor = self.sets[0](basis, probabilities, noise)
            return whole
        tensors = basis.tensors if len(basis.tensors) > 1 else basis.tensors * len(self.sets)
        parts: list[Tensor] = [
            candidates(Exact(tensor), probabilities[:, b : b + 1], noise)
            for b, (candidates, tensor) in enumerate(zip(self.sets, tensors, strict=True))
        ]
        return sum(parts[1:], parts[0])
