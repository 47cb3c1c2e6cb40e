"""What alphas say, what they cost, and what becomes of them."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qnas.errors import TrainingError
from qnas.network.architecture import Choice
from qnas.search.space.candidate_costs import CandidateCosts, counted_costs
from qnas.search.space.search_space import SearchSpace, from_document
from qnas.search.supernet.alphas import (
    certainty,
    cost_tensors,
    derive,
    entropy,
    entropy_schedule,
    expected,
    gumbel,
    softmax,
)


def space_of(**changes: Any) -> SearchSpace:
    document = {
        "network": "basic", "channels": 6, "blocks": 1, "scale": 2, "bits": [4, 8],
        "operations": {"head.*": ["simple_1x1"], "*": ["simple_3x3", "simple_1x1", "simple_5x5"]}, **changes,
    }  # fmt: skip
    return from_document(document, "space")


def logarithms(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


# Probabilities and entropy ------------------------------------------------------------------------------


def test_probabilities_are_over_operations_and_bits_together() -> None:
    p = softmax(logarithms([1.0, 2.0], [4.0, 1.0]))
    torch.testing.assert_close(p, torch.tensor([[1.0, 2.0], [4.0, 1.0]]) / 8)


def test_entropy_by_hand() -> None:
    # 1/2, 1/4, 1/8, 1/8: (1/2 + 2/4 + 3/8 + 3/8) bits = 1.75 ln 2; of four alike: ln 4.
    skewed, flat = logarithms([4.0, 2.0], [1.0, 1.0]), torch.zeros(2, 2)
    assert entropy([skewed]).item() == pytest.approx(1.75 * math.log(2))
    assert entropy([flat]).item() == pytest.approx(math.log(4))
    assert entropy([skewed, flat]).item() == pytest.approx(1.75 * math.log(2) + math.log(4))


def test_the_entropy_of_a_certain_choice_is_zero_and_has_a_gradient() -> None:
    alpha = torch.tensor([[200.0, 0.0]], requires_grad=True)
    value = entropy([alpha])
    value.backward()
    assert value.item() == 0
    assert alpha.grad is not None
    assert bool(alpha.grad.isfinite().all())


def test_descending_the_entropy_makes_the_likeliest_likelier() -> None:
    alpha = logarithms([3.0, 2.0, 1.0]).requires_grad_()
    entropy([alpha]).backward()
    assert alpha.grad is not None
    assert torch.argmin(alpha.grad).item() == 0
    assert alpha.grad.sum().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [
        (0, 0.0),  # warm-up
        (5, 0.0),  # 15 epochs are left, a quarter of them, 3, without
        (7, 0.0),
        (8, 3 / 14 * math.log(2) / math.log(13)),  # t = 3: t / 14 * log(t - 3 + 2, base 15 - 3 + 1)
        (12, 7 / 14 * math.log(6) / math.log(13)),
        (19, 1.0),
    ],
)
def test_the_weight_of_entropy_grows_from_a_quarter_of_the_epochs_on(epoch: int, factor: float) -> None:
    assert entropy_schedule(epoch, 20, 5) == pytest.approx(factor)


@given(st.integers(1, 40), st.integers(0, 10))
def test_the_weight_of_entropy_is_that_of_the_released_code(epochs: int, warm_up: int) -> None:
    """`SparseCrit.update` in search_sr.py of github.com/On-Point-RND/QuantNAS, but for one epoch alone."""
    values = [entropy_schedule(epoch, epochs + warm_up, warm_up) for epoch in range(epochs + warm_up)]
    assert values == sorted(values)
    assert 0 <= values[0] <= values[-1] <= 1
    quarter = epochs // 4
    for t, value in enumerate(values[warm_up:]):
        linear = t / (epochs - 1) if epochs > 1 else 0.0
        logarithm = 0.0 if t < quarter else math.log(t - quarter + 2, epochs - quarter + 1)
        assert value == pytest.approx(linear * logarithm)


def test_a_search_of_warm_up_alone_has_no_entropy() -> None:
    assert [entropy_schedule(epoch, 3, 5) for epoch in range(3)] == [0, 0, 0]


# Gumbel -------------------------------------------------------------------------------------------------


def draws(alpha: torch.Tensor, temperature: float, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([gumbel(alpha, temperature, generator) for _ in range(count)])


def test_gumbel_draws_are_seeded_and_sum_to_one() -> None:
    alpha = logarithms([1.0, 2.0], [4.0, 1.0])
    first, again, other = (draws(alpha, 1.0, 20, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first.sum((1, 2)), torch.ones(20))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_the_largest_of_a_gumbel_draw_has_the_probability_of_softmax(temperature: float) -> None:
    alpha = logarithms([1.0, 2.0], [4.0, 1.0])
    largest = draws(alpha, temperature, 4000).flatten(1).argmax(1)
    shares = torch.bincount(largest, minlength=4) / 4000
    for share, p in zip(shares.tolist(), (1 / 8, 2 / 8, 4 / 8, 1 / 8), strict=True):
        assert share == pytest.approx(p, abs=4 * (p * (1 - p) / 4000) ** 0.5)


def test_gumbel_draws_are_flat_when_hot_and_nearly_one_hot_when_cold() -> None:
    alpha = logarithms([1.0, 2.0], [4.0, 1.0])
    hot, cold = (draws(alpha, t, 500).flatten(1).max(1).values for t in (10.0, 0.1))
    assert hot.mean() < 0.4
    assert cold.mean() > 0.9


def test_the_gradient_of_a_gumbel_draw_reaches_alpha() -> None:
    alpha = torch.zeros(2, 2, requires_grad=True)
    gumbel(alpha, 1.0, torch.Generator().manual_seed(0))[0, 0].backward()
    assert alpha.grad is not None
    assert alpha.grad[0, 0] > 0
    assert alpha.grad.sum().item() == pytest.approx(0, abs=1e-6)


# Cost ---------------------------------------------------------------------------------------------------


def test_uniform_alphas_cost_one() -> None:
    space = space_of()
    tables = cost_tensors(space, counted_costs(space, "bitops", 8, 8), torch.device("cpu"))
    assert [tuple(table.shape) for table in tables] == [(1, 2)] * 2 + [(3, 2)] * 6
    uniform = [softmax(torch.zeros_like(table)) for table in tables]
    assert expected(uniform, tables).item() == pytest.approx(1)


def test_certain_alphas_cost_what_their_network_does() -> None:
    space = space_of()
    costs = counted_costs(space, "bitops", 8, 8)
    tables = cost_tensors(space, costs, torch.device("cpu"))
    choices = {name: Choice(space.candidates(name)[-1], 8) for name in space.variables}
    one_hot = [torch.zeros_like(table) for table in tables]
    for each in one_hot:
        each[-1, 1] = 1
    share = expected(one_hot, tables).item()
    assert costs.fixed + share * costs.mean_searched == pytest.approx(costs.of(choices))


def test_the_gradient_of_the_cost_is_the_share_of_each_candidate() -> None:
    space = space_of()
    searched = {
        name: {choice: 2.0 * choice.bits for choice in space.choices(name)} for name in space.variables
    }
    tables = cost_tensors(space, CandidateCosts(searched, 5.0), torch.device("cpu"))
    probabilities = [softmax(torch.zeros_like(table)).requires_grad_() for table in tables]
    expected(probabilities, tables).backward()
    # 8 variables whose mean is 2 * 6: of 96 in all a candidate of 4 bits costs 8, of 8 bits 16.
    for each in probabilities:
        assert each.grad is not None
        torch.testing.assert_close(each.grad, torch.tensor([[8.0, 16.0]]).expand_as(each) / 96)


# What is derived ----------------------------------------------------------------------------------------


def test_the_likeliest_pair_of_operation_and_bits_is_derived() -> None:
    space = space_of()
    alphas = [torch.zeros(len(space.candidates(name)), 2) for name in space.variables]
    alphas[0][0, 1] = 0.1
    alphas[3][2, 0] = 0.1
    alphas[7][1, 1] = 0.1
    choices = derive(space, alphas)
    assert list(choices) == list(space.variables)
    assert choices["head.0"] == Choice("simple_1x1", 8)
    assert choices["body.0.conv_1"] == Choice("simple_5x5", 4)
    assert choices["tail.1"] == Choice("simple_1x1", 8)
    assert choices["head.1"] == Choice("simple_1x1", 4)  # the first of equals


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_alpha_that_is_not_finite_is_an_error_with_its_place(value: float) -> None:
    space = space_of()
    alphas = [torch.zeros(len(space.candidates(name)), 2) for name in space.variables]
    alphas[5][1, 0] = value
    with pytest.raises(TrainingError, match=r"an alpha of upsample is not finite: use a smaller --alpha-lr"):
        derive(space, alphas)


def test_certainty_is_the_largest_probability_of_each_variable() -> None:
    alphas = [logarithms([1.0, 2.0], [4.0, 1.0]).requires_grad_(), torch.zeros(1, 2)]
    assert certainty(alphas) == pytest.approx([0.5, 0.5])
