"""The exact choice of options under a budget, against all choices one by one."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.cost.allocation import Budget, Choices, LayerChoice, allocated
from qnas.cost.knapsack import Front, Option
from qnas.errors import UsageError

# Few numbers, so that ties, costs of zero and losses below zero are common.
OPTIONS = st.lists(
    st.builds(Option, st.integers(0, 6), st.integers(-2, 6).map(float)), min_size=1, max_size=4
)
ITEMS = st.lists(OPTIONS, min_size=0, max_size=5)


def every(items: list[list[Option]]) -> list[tuple[int, float]]:
    """(cost, loss) of all choices."""
    return [(sum(o.cost for o in each), sum(o.loss for o in each)) for each in product(*items)]


@settings(max_examples=300, deadline=None)
@given(ITEMS, st.integers(-1, 31))
def test_the_choice_is_the_best_of_all_choices(items: list[list[Option]], budget: int) -> None:
    front, possible = Front(items), [each for each in every(items) if each[0] <= budget]
    found = front.within(budget)
    assert front.least_cost == min(cost for cost, _ in every(items))
    if not possible:
        assert found is None
        return
    assert found is not None
    chosen = [options[i] for options, i in zip(items, found.options, strict=True)]
    least = min(loss for _, loss in possible)
    cheapest = min(cost for cost, loss in possible if loss == least)
    assert (found.cost, found.loss) == (cheapest, least)
    assert (sum(o.cost for o in chosen), sum(o.loss for o in chosen)) == (cheapest, least)


def test_of_equal_options_the_first_is_taken() -> None:
    same = [Option(3, 1.0), Option(3, 1.0)]
    found = Front([same, [Option(2, 5.0), Option(1, 6.0)], same]).within(8)
    assert found is not None
    assert found.options == (0, 0, 0)


def test_sixty_layers_of_unequal_costs_are_no_work() -> None:
    items = [[Option(8 * n, 0.0), Option(4 * n, float(n * n % 97 + 1))] for n in range(101, 161)]
    front = Front(items)
    half = front.within(sum(8 * n for n in range(101, 161)) * 0.75)
    assert half is not None
    assert half.cost <= sum(6 * n for n in range(101, 161))


def choices() -> Choices:
    layers = (
        LayerChoice("first", {"8": 80, "4": 40}, {"8": 0.0, "4": 3.0}),
        LayerChoice("second", {"8": 120, "4": 60}, {"8": 0.0, "4": 4.0}),
    )
    return Choices("bitops", layers, fixed=100, error=0.5)


def test_budgets_are_shares_of_8_bits_or_numbers_and_count_what_has_no_choice() -> None:
    budgets = [Budget("80%", 0.8, None), Budget("260", None, 260.0), Budget("100%", 1.0, None)]
    found = allocated(choices(), budgets)
    assert [each.bits for each in found] == [
        {"first": "8", "second": "4"},
        {"first": "4", "second": "8"},
        {"first": "8", "second": "8"},
    ]
    assert [each.cost for each in found] == [240, 260, 300]
    assert [each.error for each in found] == [4.5, 3.5, 0.5]


def test_a_budget_below_the_fewest_bits_names_these() -> None:
    with pytest.raises(UsageError, match=r"--budget 60% is below the 200 BitOps \(66.7% of 8 bits\)"):
        allocated(choices(), [Budget("60%", 0.6, None)])
