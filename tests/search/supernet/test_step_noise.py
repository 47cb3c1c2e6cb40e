"""The noise of a step depends on its seed alone, not on how many processes divide the batch."""

import pytest
import torch

from qnas.search.supernet.noise import StepNoise
from qnas.search.supernet.world import World

CPU = torch.device("cpu")
SHAPE = (8, 3, 5, 4)


def test_draws_depend_on_the_seed_alone() -> None:
    first, again, other = (StepNoise(seed, CPU, World()) for seed in (1, 1, 2))
    x = torch.zeros(SHAPE)
    drawn = first.draw_image(x)[0]
    assert torch.equal(drawn, again.draw_image(x)[0])
    assert not torch.equal(drawn, other.draw_image(x)[0])
    assert not torch.equal(drawn, first.draw_image(x)[0])


@pytest.mark.parametrize("size", [2, 4, 8])
def test_processes_draw_their_parts_of_one_batch(size: int) -> None:
    whole = StepNoise(5, CPU, World())
    parts = [StepNoise(5, CPU, World(rank, size)) for rank in range(size)]
    x, weight = torch.zeros(SHAPE), torch.zeros(2, 9, 3, 3, 3)
    for _ in range(3):  # draws of batches and weights by turns
        z, flips = whole.draw_image(x)
        own = [part.draw_image(some) for part, some in zip(parts, x.chunk(size), strict=True)]
        assert all(torch.equal(each, z) for each, _ in own)
        assert torch.equal(torch.cat([signs for _, signs in own]), flips)
        drawn = whole.draw(weight)
        assert drawn.shape == weight.shape
        assert all(torch.equal(part.draw(weight), drawn) for part in parts)


def test_draws_are_standard_normal_and_channels_last() -> None:
    drawn, flips = StepNoise(0, CPU, World()).draw_image(torch.zeros(400, 512, 20, 20))
    assert (drawn.shape, flips.shape) == ((1, 512, 20, 20), (400, 1, 1, 1))
    assert flips.square().unique().tolist() == [1.0]
    assert abs(flips.mean().item()) < 0.25  # standard error 0.05
    assert drawn.is_contiguous(memory_format=torch.channels_last)
    assert drawn.mean().item() == pytest.approx(0, abs=0.01)  # 204800 values: standard error 0.0022
    assert drawn.std().item() == pytest.approx(1, abs=0.01)


def test_the_span_is_that_of_the_values() -> None:
    x = torch.tensor([-1.5, 0.0, 2.0]).view(1, 3, 1, 1).requires_grad_()
    span = StepNoise(0, CPU, World()).span(x)
    assert span.item() == 3.5
    assert not span.requires_grad
