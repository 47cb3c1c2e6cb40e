"""ADQ's factor: a learned function of the standard deviation that a block's input has over (C, H, W)."""

import torch
from torch import Tensor, nn

from qnas.quantization.image_gain import FactorForm, ImageGain, variance
from qnas.quantization.quantizers import SMALLEST_SCALE

LINEAR_WEIGHT = 1.5  # of `w * std + b` at the start


class Deviation(nn.Module):
    """ADQ's factor [N, 1, 1, 1], a function of std(x) over (C, H, W) of each image.

    `form` power: `exp(w * log(std) + b)`, AdaDM's (Liu et al., ICCV workshops 2021) without its second batch
    norm; linear: `w * std + b`, QuantNAS', with w = 1.5 and b = 0 at the start. `eval()` has the running mean
    [1], or with `per_image` the short factor of each image that `qnas.quantization.image_gain` decides.
    """

    def __init__(self, form: FactorForm = "power") -> None:
        super().__init__()
        self.per_image, self.form = False, form
        self.weight = nn.Parameter(torch.tensor(1.0 if form == "power" else LINEAR_WEIGHT))
        self.bias = nn.Parameter(torch.tensor(0.0))
        self.running_factor: Tensor
        self.register_buffer("running_factor", torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self._short(x) if self.per_image else self.running_factor.view(1)
        factor = self.factor(x)
        with torch.no_grad():
            self.running_factor.lerp_(self.batch_mean(factor), 0.1)
        return factor

    def batch_mean(self, factor: Tensor) -> Tensor:
        """What the running factor is drawn to: the mean [] of the factors of a batch."""
        return factor.mean()

    def factor(self, x: Tensor) -> Tensor:
        """The factor of each image [N, C, H, W] -> [N, 1, 1, 1], with its gradient."""
        deviation = x.std(dim=(1, 2, 3), keepdim=True).clamp(min=SMALLEST_SCALE)
        if self.form == "linear":
            return (self.weight * deviation + self.bias).clamp(min=SMALLEST_SCALE)
        return torch.exp(self.weight * torch.log(deviation) + self.bias)

    def gain(self, channels: int) -> ImageGain:
        """What decides the factor of an image with so many channels."""
        return ImageGain(self.weight.item(), self.bias.item(), channels, self.form)

    def _short(self, x: Tensor) -> Tensor:
        """The sums are exact: x holds integers times a power of two."""
        values = x.detach().double()
        total, squares = (part.sum(dim=(1, 2, 3)).cpu().numpy() for part in (values, values.square()))
        factors = self.gain(x.shape[1]).of(variance(total, squares, x[0].numel()))
        return torch.from_numpy(factors).to(x.device).view(-1, 1, 1, 1)


class ImageDeviation(nn.Conv2d):
    """ADQ's factor `w * std(x) + b` [N, 1, 1, 1] of each image, as the paper's code has it."""

    def __init__(self) -> None:
        super().__init__(1, 1, 1)
        with torch.no_grad():
            self.weight.fill_(LINEAR_WEIGHT)
            self.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.std(dim=(1, 2, 3), keepdim=True))
