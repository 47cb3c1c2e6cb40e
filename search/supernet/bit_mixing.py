"""Mixtures of bit widths of one tensor, in three ways (QuantNAS, equations 3 to 6).

All mixtures of a tensor are weighted sums of the same few tensors, its `Basis`: what it is at every width, or
for noise itself and one draw, because a sum of independent Gaussians is one Gaussian.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn

from qnas.quantization.quantizers import FLOAT_BITS, QuantSpec
from qnas.search.supernet.compiled import quantized_mixture
from qnas.torch.fake_quantization import Quantizer

Mixer = Literal["independent", "shared", "san"]


class Noise(Protocol):
    """Where the noise of a step comes from; nothing of it is differentiated."""

    def draw(self, weight: Tensor) -> Tensor:
        """Standard normal, of the shape of `weight`."""

    def draw_image(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Standard normal [1, C, H, W] for x [N, C, H, W]; -1 or 1 for each of its images, [N, 1, 1, 1]."""

    def signs(self, like: Tensor) -> Tensor:
        """-1 or 1 with equal probability, of the shape of `like`."""

    def span(self, x: Tensor) -> Tensor:
        """Largest minus smallest value of the whole batch, []."""


class Basis(ABC):
    """`tensors` whose weighted sums are all mixtures of bit widths of one tensor."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tuple(tensors)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of one shape, but that there may be one image for a whole batch."""
        return self._tensors

    @property
    def batches(self) -> int:
        """How many of the tensors are as large as the batch."""
        return len(self.tensors)

    def total(self, parts: Sequence[Tensor]) -> Tensor:
        """The sum of a linear function of each of the tensors."""
        return sum(parts[1:], parts[0])

    @abstractmethod
    def weights(self, shares: Tensor) -> Tensor:
        """Shares [..., B] of the bit widths -> weights [..., J] of the tensors."""

    def mixed(self, shares: Tensor) -> Tensor:
        """The mixture with shares [B]."""
        first, *rest = self.tensors
        weights = self.weights(shares)
        mixture = first * weights[0] if len(self.tensors) > 1 else first
        for weight, tensor in zip(weights[1:], rest, strict=True):
            mixture = torch.addcmul(mixture, tensor, weight)
        return mixture


class Exact(Basis):
    """A tensor that no bit width changes: the image, or all bits 32."""

    def __init__(self, x: Tensor) -> None:
        super().__init__((x,))

    def weights(self, shares: Tensor) -> Tensor:
        return torch.ones_like(shares[..., :1])


class Quantized(Basis):
    """One tensor for each bit width."""

    def weights(self, shares: Tensor) -> Tensor:
        return shares


class OnePass(Quantized):
    """One tensor for each bit width, made when asked for; a mixture of them is one compiled pass over x."""

    def __init__(self, x: Tensor, quantizers: Sequence[Quantizer | None]) -> None:
        super().__init__(())
        self.x, self.quantizers = x, quantizers

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        if not self._tensors:
            self._tensors = tuple(quantizer(self.x) if quantizer else self.x for quantizer in self.quantizers)
        return self._tensors

    def mixed(self, shares: Tensor) -> Tensor:
        one = torch.ones((), device=self.x.device)
        scales = torch.stack([q.scale().to(one) if q else one for q in self.quantizers])
        bounds = [(q.spec.low, q.spec.high) if q else None for q in self.quantizers]
        return quantized_mixture(self.x, scales, shares, bounds)


class Noisy(Basis):
    """x and one draw: `x + sigma z` with `sigma^2 = sum_b (a_b delta_b / 2)^2`; deltas [B] or [..., B].

    Where `signs` come from a step's noise, each mixture has z or -z by lot. Two mixtures of one tensor are
    then uncorrelated, as with draws of their own, and so is what candidates add to the output of a layer. So
    are two images of a batch, which share the draw of one image up to their `flips` [N, 1, 1, 1].
    """

    def __init__(
        self,
        x: Tensor,
        noise: Tensor,
        deltas: Tensor,
        flips: Tensor | None = None,
        signs: Noise | None = None,
    ) -> None:
        super().__init__((x, noise))
        self.deltas, self.flips, self.signs = deltas, flips, signs

    @property
    def batches(self) -> int:
        return 1 if self.flips is not None else 2

    def weights(self, shares: Tensor) -> Tensor:
        # The square root has no derivative at zero, which all shares on 32 bits reach.
        variance = (shares * self.deltas / 2).square().sum(-1)
        sigma = torch.where(variance > 0, variance, 1.0).sqrt() * (variance > 0)
        if self.signs:
            sigma = sigma * self.signs.signs(sigma)
        return torch.stack((torch.ones_like(sigma), sigma), -1)

    def mixed(self, shares: Tensor) -> Tensor:
        x, noise = self.tensors
        return self.total((x, noise * self.weights(shares)[1]))

    def total(self, parts: Sequence[Tensor]) -> Tensor:
        x, noise = parts
        if self.flips is None:
            return x + noise
        rows, one = (each.permute(0, 2, 3, 1).flatten(1) for each in (x, noise))  # in the order of memory
        added = torch.addmm(rows, self.flips.flatten(1), one)  # its gradient is a product, too: no slow sum
        n, c, h, w = x.shape
        return added.view(n, h, w, c).permute(0, 3, 1, 2)


def noise_deltas(span: Tensor, bits: Sequence[int]) -> Tensor:
    """`range / (2^b - 1)`, zero at 32 bits: span [...] -> [..., B]."""
    levels = [0.0 if b == FLOAT_BITS else 1 / (2**b - 1) for b in bits]
    return span.detach().unsqueeze(-1) * torch.tensor(levels, device=span.device)


class Reader(nn.Module):
    """Makes the basis of a tensor that candidates read. Its quantizers are named by their bits."""

    def __init__(
        self,
        bits: tuple[int, ...],
        mixer: Mixer,
        *,
        signed: bool,
        exact: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.bits, self.mixer, self.compiled = bits, mixer, compiled
        self.exact = exact or bits == (FLOAT_BITS,)
        if not self.exact and mixer != "san":
            for b in bits:
                if b < FLOAT_BITS:
                    quantizer = Quantizer(QuantSpec(b, signed=signed))
                    quantizer.step.requires_grad_(False)  # set from data, see Turns.calibrate
                    self.add_module(str(b), quantizer)

    def forward(self, x: Tensor, noise: Noise) -> Basis:
        if self.exact:
            return Exact(x)
        if self.mixer == "san":
            z, flips = noise.draw_image(x)
            return Noisy(x, z, noise_deltas(noise.span(x), self.bits), flips, noise)
        quantizers = [
            None if b == FLOAT_BITS else cast(Quantizer, self.get_submodule(str(b))) for b in self.bits
        ]
        basis = OnePass(x, quantizers)
        if self.compiled and not any(quantizer and quantizer.calibrating for quantizer in quantizers):
            return basis
        return Quantized(basis.tensors)
