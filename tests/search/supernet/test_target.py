"""A search with a target ends at an architecture of that cost, the likeliest there is."""

import itertools
import json
import signal
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.network.architecture import Choice, from_json
from qnas.search.runs.result import image_cost
from qnas.search.runs.search_log import SearchLog
from qnas.search.search_cli import main
from qnas.search.space.candidate_costs import CandidateCosts, counted_costs
from qnas.search.space.search_space import SearchSpace, find_space
from qnas.search.supernet.state import Search
from qnas.search.supernet.supernet_search import StepNews
from qnas.search.supernet.target import Target, likeliest
from qnas.testing.small_searches import TINY, assert_same_search, records

VARIABLES = st.lists(
    st.lists(st.tuples(st.integers(0, 30), st.floats(-9, 0)), min_size=1, max_size=4),
    min_size=1, max_size=4,
)  # fmt: skip


@given(VARIABLES, st.integers(-20, 200), st.integers(0, 20))
def test_the_knapsack_is_that_of_all_combinations(
    variables: list[list[tuple[int, float]]], wanted: int, slack: int
) -> None:
    costs = [np.array([cost for cost, _ in rows]) for rows in variables]
    scores = [np.array([score for _, score in rows]) for rows in variables]

    def worth(indices: tuple[int, ...]) -> tuple[int, float]:
        cost = sum(int(own[i]) for own, i in zip(costs, indices, strict=True))
        return max(abs(cost - wanted), slack), -sum(own[i] for own, i in zip(scores, indices, strict=True))

    found = worth(tuple(likeliest(costs, scores, wanted, slack)))
    best = min(map(worth, itertools.product(*(range(len(own)) for own in costs))))
    assert found == pytest.approx(best)


@pytest.mark.parametrize("name", ["basic-small", "rfdn", "edmips-espcn"])
@pytest.mark.parametrize("bits", [(4, 8), (2, 4, 32)], ids=str)
def test_architectures_of_real_spaces_cost_their_target(name: str, bits: tuple[int, ...]) -> None:
    space = find_space(name).with_bits(bits)
    costs = counted_costs(space, "bitops", 20, 24)
    generator = torch.Generator().manual_seed(len(name))
    alphas = [
        torch.randn(len(space.candidates(v)), len(space.widths), generator=generator) for v in space.variables
    ]
    for share in (0.3, 0.7):
        target = Target(share * costs.largest, costs)
        choices = target.choices(space, alphas)
        counted = image_cost(space.architecture(choices), (20, 24)).bitops
        assert counted / target.cost - 1 == pytest.approx(target.excess(choices))
        assert target.within(choices) or name == "edmips-espcn"  # it has 27 architectures at most


@pytest.mark.parametrize("bits", [(4, 8), (4, 32)], ids=str)
@given(st.integers(0, 999), st.floats(0.01, 1.2))
@settings(max_examples=30)
def test_the_likeliest_is_that_of_all_architectures_of_a_space(
    bits: tuple[int, ...], seed: int, share: float
) -> None:
    space, costs = small_space(bits), small_costs(bits)
    generator = torch.Generator().manual_seed(seed)
    alphas = [torch.randn(len(space.candidates(v)), 2, generator=generator) for v in space.variables]
    target = Target(share * costs.largest, costs)
    logs = [torch.log_softmax(alpha.flatten().double(), 0).tolist() for alpha in alphas]
    every = []  # (how far from the target, how likely) of all
    for indices in itertools.product(*(range(len(log)) for log in logs)):
        named = zip(space.variables, (divmod(index, 2) for index in indices), strict=True)
        choices = {name: Choice(space.candidates(name)[op], bits[b]) for name, (op, b) in named}
        likelihood = sum(log[index] for log, index in zip(logs, indices, strict=True))
        every.append((abs(target.excess(choices)), likelihood))
    found = target.choices(space, alphas)
    away, likelihood = abs(target.excess(found)), 0.0
    for (name, choice), log in zip(found.items(), logs, strict=True):
        likelihood += log[2 * space.candidates(name).index(choice.op) + bits.index(choice.bits)]
    inside = [each for far, each in every if far < 0.027]  # bins are 0.1 % of the target in all
    if inside:
        assert away <= 0.03
        assert likelihood >= max(inside) - 1e-9
    else:
        assert away <= max(0.03, min(every)[0] + 0.002)


@cache
def small_space(bits: tuple[int, ...]) -> SearchSpace:
    operations = {"body*": ("simple_3x3", "simple_1x1"), "*": ("simple_3x3",)}
    return SearchSpace("small", "basic", 4, 1, 2, bits, operations, identical_blocks=True)


@cache
def small_costs(bits: tuple[int, ...]) -> CandidateCosts:
    return counted_costs(small_space(bits), "bitops", 8, 8)


def test_the_likeliest_of_all_is_taken_where_it_costs_the_target() -> None:
    times = {Choice("x", 4): 1.02, Choice("x", 8): 1.0}  # milliseconds, of a table
    costs = CandidateCosts({"a": times}, 0.0)
    space = replace(find_space("edmips-espcn"), separate_bits=False)
    likely = Target(1.0, costs)
    assert likely.next_penalty(1e-4, {}, 10) == pytest.approx(6.7e-5, rel=0.01)  # nothing costs nothing
    three = counted_costs(space, "bitops", 32, 32)
    alphas = [torch.tensor([[0.0, 2.0]])] * 3  # 8 bits everywhere
    choices = Target(0.98 * three.largest, three).choices(space, alphas)
    assert {choice.bits for choice in choices.values()} == {8}


def test_a_target_far_below_or_above_all_takes_the_cheapest_or_the_dearest() -> None:
    space, costs = small_space((4, 8)), small_costs((4, 8))
    alphas = [torch.zeros(len(space.candidates(v)), 2) for v in space.variables]
    assert costs.of(Target(1e-3, costs).choices(space, alphas)) == costs.smallest
    assert costs.of(Target(1e24, costs).choices(space, alphas)) == costs.largest


def test_the_penalty_rises_above_the_target_and_falls_below_it_through_zero() -> None:
    space = replace(find_space("edmips-espcn"), separate_bits=False)
    costs = counted_costs(space, "bitops", 32, 32)
    dearest = Target(costs.largest, costs).choices(space, [torch.tensor([[0.0, 0.0]])] * 3)
    penalty, seen = 1e-4, []
    for cost in [costs.largest / 2] * 40 + [2 * costs.largest] * 100:
        penalty = Target(cost, costs).next_penalty(penalty, dearest, 10)
        seen.append(penalty)
    assert seen[:40] == sorted(seen[:40])
    assert seen[39] > 1e-4 > 0 > seen[-1]
    assert seen[40:] == sorted(seen[40:], reverse=True)
    for _ in range(10_000):
        penalty = Target(2 * costs.largest, costs).next_penalty(penalty, dearest, 10)
    assert -1000 < penalty < -1  # bounded


# Runs -------------------------------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


def test_a_search_with_a_target_ends_there_and_resumed_with_the_same_bits(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    arguments = [*TINY, "--data", photographs, "--target-bitops", "60%"]
    told = run(*arguments, "-o", whole)
    assert told.exit_code == 0, told.output
    reached = json.loads((whole / "result.json").read_text())["reached"]
    found = from_json((whole / "arch.json").read_text(), "arch.json")
    assert abs(reached["excess"]) <= 0.03
    assert image_cost(found, (32, 32)).bitops == pytest.approx(reached["target"] * (1 + reached["excess"]))
    penalties = [each["penalty"] for each in records(whole) if each["kind"] == "step"]
    assert penalties[:5] == [1e-4] * 5  # until the first step of the alphas has been made
    assert len(set(penalties[5:])) == 7
    assert "% above the target" in told.output or "% below the target" in told.output
    assert "Penalty" in (whole / "report.html").read_text()

    step = SearchLog.step

    def stopping(self: SearchLog, search: Search, news: StepNews) -> None:
        step(self, search, news)
        if news.step == 7:  # the alphas have learned, and the penalty has moved
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(SearchLog, "step", stopping)
    assert run(*arguments, "-o", parts).exit_code == 130
    monkeypatch.undo()
    told = run("-o", parts, "--resume")
    assert told.exit_code == 0, told.output
    assert_same_search(parts, whole)


def test_a_target_that_no_architecture_costs_is_told_and_the_nearest_taken(
    photographs: Path, tmp_path: Path
) -> None:
    told = run(*TINY, "--data", photographs, "--target-bitops", "5T", "-o", tmp_path / "x")
    assert told.exit_code == 0, told.output
    assert "warning: no architecture of basic-small costs what --target-bitops asks for" in told.output
    assert json.loads((tmp_path / "x" / "result.json").read_text())["reached"]["excess"] < -0.9


@pytest.mark.parametrize("text", ["0", "-3G", "many", "60 %", "%"])
def test_a_target_that_is_no_cost_is_refused(text: str, photographs: Path, tmp_path: Path) -> None:
    told = run(*TINY, "--data", photographs, f"--target-bitops={text}", "-o", tmp_path / "x")
    assert told.exit_code == 2
    assert "--target-bitops" in told.output
    assert not (tmp_path / "x").exists()
