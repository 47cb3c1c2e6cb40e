"""Search against quantization noise: one draw stands for all bit widths (equations 5 and 6 of QuantNAS)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qnas.network.operations import ConvShape
from qnas.search.supernet.alphas import softmax
from qnas.search.supernet.bit_mixing import Noisy, Reader, noise_deltas
from qnas.search.supernet.kernels import Kernels
from qnas.search.supernet.mixed_layer import MixedLayer
from qnas.testing.per_operation import Draws, PerOperation
from qnas.testing.searched_layers import CHAINS, SINGLES, random_alpha, random_input, reader_of, searched


def test_the_noise_of_a_mixture_has_the_summed_variance() -> None:
    # Range 15: delta 5 at 2 bits, 1 at 4, 0 at 32. Shares 1/2, 1/2: (1/2 5/2)^2 + (1/2 1/2)^2 = 1.625.
    deltas = noise_deltas(torch.tensor(15.0), (2, 4, 32))
    assert deltas.tolist() == pytest.approx([5, 1, 0])
    basis = Noisy(torch.zeros(1), torch.ones(1), deltas)
    assert basis.weights(torch.tensor([0.5, 0.5, 0.0])).tolist() == pytest.approx([1, 1.625**0.5])
    assert basis.weights(torch.tensor([0.0, 0.0, 1.0])).tolist() == [1, 0]
    assert basis.mixed(torch.tensor([0.0, 0.5, 0.5])).item() == pytest.approx(0.25)


def test_a_reader_adds_noise_of_half_a_step_to_its_input() -> None:
    x = torch.linspace(0, 15, 16).repeat(8, 4, 4, 500)
    mixture = Reader((4,), "san", signed=False)(x, Draws()).mixed(torch.ones(1)) - x
    assert mixture.mean().item() == pytest.approx(0, abs=0.003)  # 1e6 values: standard error 0.0005
    assert mixture.std().item() == pytest.approx(0.5, rel=0.005)  # standard error 0.07 %


def test_weights_of_each_candidate_have_noise_of_their_own_range_inside_their_mask() -> None:
    torch.manual_seed(0)
    shapes = [ConvShape(6, 9, (5, 5)), ConvShape(6, 9, (3, 3), 3), ConvShape(6, 9, (1, 1))]
    kernels, noise = Kernels(shapes, (2, 4), "san"), Draws()
    shares = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    with torch.no_grad():
        draws = torch.stack([kernels.mixed(shares, noise) - kernels.weight for _ in range(400)])
    # Deltas range / 3 and range / 15: sigma range / 6, range (1 / 12^2 + 1 / 60^2)^(1/2), range / 30.
    for index, part in enumerate((1 / 6, (1 / 144 + 1 / 3600) ** 0.5, 1 / 30)):
        span = kernels.weight.detach()[index].max() - kernels.weight.detach()[index].min()
        inside, outside = (draws[:, index][:, kernels.mask[index] == where] for where in (1, 0))
        assert float(inside.std() / span) == pytest.approx(part, rel=0.02)  # 21600 draws or more: 0.5 %
        assert float(outside.abs().sum()) == 0


def samples(
    compute: Callable[[Tensor, Tensor], Tensor], x: Tensor, alpha: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """(outputs [count, N, ...], gradients of alpha [count, O, B] of a squared loss) of so many draws."""
    ys, gradients = [], []
    for _ in range(count):
        leaf = alpha.clone().requires_grad_()
        y = compute(x, softmax(leaf))
        y.square().mean().backward()
        assert leaf.grad is not None
        ys.append(y.detach())
        gradients.append(leaf.grad)
    return torch.stack(ys), torch.stack(gradients)


def apart(a: Tensor, b: Tensor) -> float:
    """How many standard errors two means over axis 0 lie apart, at most."""
    error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    return float(((a.mean(0) - b.mean(0)).abs() / error).max())


def assert_same_noise(
    layer: MixedLayer,
    oracle: PerOperation,
    alpha: Tensor,
    own: Draws,
    count: int,
    bits: tuple[int, ...] = (2, 4),
) -> None:
    """Means, variance and expected gradients agree; the standard error of the variance is below 2 %.

    For each draw of the weights there are 8 of the input. Of the 108 means of a comparison one would be 5
    standard errors apart in one of 16000.
    """
    reader, noise = reader_of(bits, "san"), Draws(1)
    x = random_input(images=1)[:, :, :4, :3].repeat(8, 1, 1, 1)
    ours, gradients = samples(lambda x, p: layer(reader(x, noise), p, noise), x, alpha, count)
    theirs, own_gradients = samples(lambda x, p: oracle(x, p, own), x, alpha, count)
    assert apart(ours.mean(1), theirs.mean(1)) < 5
    assert apart(gradients, own_gradients) < 4.5
    spread, own_spread = ((y - y.mean((0, 1))).square().flatten(1).mean(1) for y in (ours, theirs))
    assert apart(spread, own_spread) < 4
    assert float(own_spread.std() / own_spread.mean()) / count**0.5 < 0.02


@pytest.mark.parametrize("operation", ["simple_3x3", "simple_5x5_grouped_3", "growth2_3x3", "conv_3x1_1x3"])
def test_one_draw_of_noise_has_the_mean_and_variance_of_a_draw_for_each_bit_width(operation: str) -> None:
    layer = searched([operation], (2, 4), "san")
    oracle = PerOperation(layer, reader_of((2, 4), "san"))
    assert_same_noise(layer, oracle, random_alpha(1, 2), Draws(2), 200)


def test_joined_candidates_have_the_mean_and_variance_of_inputs_noised_one_by_one() -> None:
    layer = searched(SINGLES, (2, 4), "san")
    oracle = PerOperation(layer, reader_of((2, 4), "san"))
    assert_same_noise(layer, oracle, random_alpha(len(SINGLES), 2), Draws(2), 200)


def test_candidates_that_compute_the_same_do_not_add_up_their_noise() -> None:
    # Probability one half each: with one sign for both the noise of the input would have twice the variance.
    layer = searched(["simple_5x5", "simple_3x3"], (2,), "san")
    kernels = layer.sets[0].singles
    with torch.no_grad():
        kernels.weight[0] = kernels.weight[1]
    oracle = PerOperation(layer, reader_of((2,), "san"))
    assert_same_noise(layer, oracle, torch.zeros(2, 1, dtype=torch.float64), Draws(2), 200, bits=(2,))


@pytest.mark.parametrize("operations", [SINGLES, CHAINS, (*SINGLES, *CHAINS)], ids=len)
@pytest.mark.parametrize("merged", [False, True])
def test_a_draw_for_one_image_is_as_one_for_each_of_those_numbers(
    operations: tuple[str, ...], merged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Whole(Draws):
        """The same numbers, as draws of the size of the batch."""

        def draw_image(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z, flips = super().draw_image(x)
            return z * flips, torch.ones_like(flips)

    bits, x, alpha = (2, 4, 8), random_input(images=5), random_alpha(len(operations), 3)
    results = []
    for noise in (Draws(3), Whole(3)):
        if isinstance(noise, Whole):
            monkeypatch.setattr(Noisy, "total", lambda self, parts: parts[0] + self.flips * parts[1])
        layer, reader = searched(operations, bits, "san", merged=merged), reader_of(bits, "san")
        image, leaf = x.clone().requires_grad_(), alpha.clone().requires_grad_()
        y = layer(reader(image, noise), softmax(leaf), noise)
        y.square().sum().backward()
        results.append([y, image.grad, leaf.grad, *(weight.grad for weight in layer.parameters())])
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


def test_the_noise_of_two_images_is_uncorrelated() -> None:
    reader, noise, x = reader_of((2,), "san"), Draws(), random_input(images=1).repeat(2, 1, 1, 1)
    draws = torch.stack([reader(x, noise).mixed(torch.ones(1)) - x for _ in range(400)])
    products = (draws[:, 0] * draws[:, 1]).mean((1, 2, 3)) / draws.square().mean()
    assert products.abs().mean().item() == pytest.approx(1, abs=0.1)  # each the other, or its negative
    assert abs(products.mean().item()) < 4 / 400**0.5


@pytest.mark.parametrize("bits", [(4,), (2, 3, 4, 8)], ids=len)
def test_the_number_of_draws_does_not_grow_with_the_bit_widths(bits: tuple[int, ...]) -> None:
    layer, reader, noise = searched((*SINGLES, *CHAINS), bits, "san"), reader_of(bits, "san"), Draws()
    layer(reader(random_input(), noise), softmax(random_alpha(8, len(bits))), noise)
    kernels, inside = 2 + 3 + 2, 1 + 2 + 1  # of the chains, and what is read inside of them
    assert noise.counts == {"draw": 1 + kernels, "draw_image": 1 + inside}
