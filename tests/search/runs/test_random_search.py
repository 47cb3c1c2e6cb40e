"""Random architectures: inside their range of BitOps, each as likely, however few fit."""

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given

from qnas.cost.network_cost import network_cost
from qnas.errors import UsageError
from qnas.network.architecture import from_json
from qnas.network.lowering import lower
from qnas.one_writer import one_writer
from qnas.search.random_cli import main
from qnas.search.runs.random_search import (
    BINS,
    CostWindow,
    _window,
    giga,
    parse_amount,
    random_architectures,
)
from qnas.search.space.candidate_costs import counted_costs
from qnas.search.space.search_space import SearchSpace, find_space, from_document

IMAGE = (32, 32)
ESPCN = replace(find_space("edmips-espcn"), separate_bits=False)  # 2^3 architectures
SMALL = find_space("basic-small")

tables = st.lists(
    st.lists(st.integers(0, 40).map(lambda n: 6 * n), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=4,
).map(tuple)


def inside(window: CostWindow) -> set[tuple[int, ...]]:
    """By trying all."""
    choices = product(*(range(len(row)) for row in window.costs))
    return {
        each for each in choices
        if window.low <= sum(row[i] for row, i in zip(window.costs, each, strict=True)) <= window.high
    }  # fmt: skip


@given(tables, st.integers(-10, 900), st.integers(0, 400))
def test_the_count_of_a_window_is_that_of_trying_all(
    costs: tuple[tuple[int, ...], ...], low: int, room: int
) -> None:
    window = CostWindow(costs, low, low + room)
    assert window.width % 6 == 0 or window.width == 1  # or nothing differs
    found = inside(window)
    assert math.exp(window.log_count) == pytest.approx(len(found))
    if found:
        rng = np.random.default_rng(0)
        assert {window.draw(rng) for _ in range(20)} <= found


@given(tables, st.integers(0, 900), st.integers(0, 400), st.integers(2, 12))
def test_coarse_bins_leave_nothing_out(
    costs: tuple[tuple[int, ...], ...], low: int, room: int, bins: int
) -> None:
    window = CostWindow(costs, low, low + room, bins)
    ends = window._ways[-1]
    assert len(ends) <= bins
    for each in inside(window):
        spent = sum(row[i] for row, i in zip(window._binned, each, strict=True))
        assert spent < len(ends)
        assert ends[spent] == 0  # the logarithm of one way


@pytest.mark.parametrize("bins", [BINS, 4])
def test_every_choice_of_a_window_is_as_likely(bins: int) -> None:
    window = CostWindow(((0, 1, 2), (0, 1, 2), (0, 3)), 2, 4, bins)
    expected = inside(window)
    assert len(expected) == 9  # with 0 the six pairs of sum 2 to 4, with 3 the three of sum 0 and 1
    rng = np.random.default_rng(0)
    counts = Counter(each for each in (window.draw(rng) for _ in range(3000)) if each in expected)
    assert set(counts) == expected
    mean = sum(counts.values()) / len(expected)
    chi_square = sum((count - mean) ** 2 / mean for count in counts.values())
    assert chi_square < 26.1  # 8 degrees of freedom: p = 0.001


def test_a_window_that_almost_nothing_fits_is_found_at_once() -> None:
    window = CostWindow(((0, *range(1000, 1023)),) * 30, 1005, 1005)  # one layer at its sixth, else firsts
    assert math.exp(window.log_count) == pytest.approx(30)
    drawn = window.draw(np.random.default_rng(0))
    assert sorted(drawn) == [0] * 29 + [6]


def test_numbers_of_architectures_beyond_any_float_do_no_harm() -> None:
    window = CostWindow((tuple(range(24)),) * 250, 2600, 2700)  # 24^250 is 1e345
    assert window.log_count > 250 * math.log(24) - 20
    assert 2600 <= sum(window.draw(np.random.default_rng(0))) <= 2700


def test_bins_that_are_too_coarse_to_be_exact_still_waste_few_draws() -> None:
    space = replace(find_space("basic"), channels=33)
    costs = counted_costs(space, "bitops", *IMAGE)
    window = _window(space, costs, 16e9, 20e9)
    assert any(extra % window.width for row in window._extra for extra in row)
    rng = np.random.default_rng(0)
    drawn = [window.draw(rng) for _ in range(50)]
    sums = [sum(row[i] for row, i in zip(window.costs, each, strict=True)) for each in drawn]
    assert sum(window.low <= each <= window.high for each in sums) >= 49


# Architectures ----------------------------------------------------------------------------------------------


def bitops(space: SearchSpace, samples: int, low: float | None, high: float, seed: int = 0) -> list[int]:
    found = random_architectures(space, samples, low, high, IMAGE, seed)
    assert len({each.to_json() for each in found}) == samples
    return [network_cost(lower(each), *IMAGE).bitops for each in found]


def test_architectures_are_distinct_and_cost_what_is_asked_for() -> None:
    assert all(1.92e9 <= each <= 2.4e9 for each in bitops(SMALL, 8, None, 2.4e9))
    assert all(4e9 <= each <= 4.1e9 for each in bitops(SMALL, 8, 4e9, 4.1e9))


def test_identical_blocks_stay_identical() -> None:
    for each in random_architectures(SMALL, 3, None, 4e9, IMAGE, 0):
        assert {each.layers[f"body.{k}.conv_0"] for k in range(3)} == {each.layers["body.0.conv_0"]}


def test_a_larger_number_begins_with_a_smaller_one_and_seeds_differ() -> None:
    first, second = (random_architectures(SMALL, n, None, 4e9, IMAGE, 0) for n in (2, 4))
    assert first == second[:2]
    assert random_architectures(SMALL, 2, None, 4e9, IMAGE, 1) != first


def test_all_of_a_small_space_can_be_drawn() -> None:
    assert len(bitops(ESPCN, 8, 0, 1e12)) == 8


def test_the_cheapest_and_the_dearest_are_reached() -> None:
    costs = counted_costs(SMALL, "bitops", *IMAGE)
    assert bitops(SMALL, 1, costs.smallest, costs.smallest) == [costs.smallest]
    assert bitops(SMALL, 1, costs.largest, costs.largest) == [costs.largest]


def test_networks_without_any_quantizer_are_as_likely_as_others() -> None:
    operations = {"*": ["simple_1x1"], "body.0.r*": ["simple_3x3"]}
    document = {
        **find_space("rfdn-small").to_document(),
        "blocks": 1,
        "bits": [8, 32],
        "operations": operations,
    }
    space = from_document(document, "one", "one")  # fusions have 8 bits, but 32 where nothing is quantized
    costs = counted_costs(space, "bitops", *IMAGE)
    assert costs.unquantized is not None
    (float_network,) = random_architectures(space, 1, costs.largest, costs.largest, IMAGE, 0)
    assert not float_network.quantized
    found = random_architectures(space, 512, 0, costs.largest, IMAGE, 0)  # 2^9, all that there are
    assert sum(not each.quantized for each in found) == 1


@pytest.mark.parametrize(
    ("space", "samples", "low", "high", "advice"),
    [
        (ESPCN, 1, None, 1e8, r"edmips-espcn at 4, 8 bits has no architecture with 0\.08G to 0\.1G BitOps at "
                              r"32x32: it reaches from 0\.\d+G to 2\.429G, ask for some of that"),
        (ESPCN, 1, 9e9, 9.1e9, "has no architecture with 9G to 9.1G"),
        (ESPCN, 9, 0, 1e12, "has only 8 of 9 architectures .*: use a smaller --samples or --min-bitops"),
        (ESPCN, 1, 2e9, 1e9, "--min-bitops 2G is more than --max-bitops 1G: swap them"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_reachable_range(
    space: SearchSpace, samples: int, low: float | None, high: float, advice: str
) -> None:
    with pytest.raises(UsageError, match=advice):
        random_architectures(space, samples, low, high, IMAGE, 0)


@pytest.mark.parametrize(
    ("text", "value"), [("120000", 120000), ("250M", 2.5e8), ("2.4G", 2.4e9), ("1k", 1000), ("0.5T", 5e11)]
)
def test_amounts_are_read_with_powers_of_a_thousand(text: str, value: float) -> None:
    assert parse_amount("--max-bitops", text) == value


@pytest.mark.parametrize(
    "text", ["", "G", "-1", "1e9", "2,4G", "2.4g", "nan", "9" * 16, "1\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--max-bitops .*: write a number, as 120000, 250M or 2\.4G"):
        parse_amount("--max-bitops", text)


def test_amounts_are_shown_in_units_of_1e9() -> None:
    assert [giga(value) for value in (2.4e9, 37_945_344 * 64, 1e7)] == ["2.4G", "2.429G", "0.01G"]


# The command ------------------------------------------------------------------------------------------------


def call(output: Path, *options: str) -> Result:
    return CliRunner().invoke(
        main, ["--space", "basic-small", "--max-bitops", "1.5G", "-o", str(output), *options]
    )


def test_the_command_writes_a_folder_for_each_architecture(tmp_path: Path) -> None:
    result = call(tmp_path / "new" / "random", "--samples", "2", "--bits", "4", "--channels", "18")
    assert result.exit_code == 0, result.output
    for index, line in zip(range(2), result.stdout.splitlines(), strict=True):
        folder = tmp_path / "new" / "random" / str(index)
        found = from_json((folder / "arch.json").read_text(), "arch.json")
        assert (found.channels, {choice.bits for choice in found.layers.values()}) == (18, {4})
        cost, record = network_cost(lower(found), *IMAGE), json.loads((folder / "result.json").read_text())
        assert {key: record[key] for key in ("space_name", "method", "macs", "bitops", "steps")} == {
            "space_name": "basic-small", "method": "random", "macs": cost.macs, "bitops": cost.bitops,
            "steps": 0,
        }  # fmt: skip
        assert line == f"{folder}: {giga(cost.bitops)} BitOps, {cost.macs / 1e6:.2f} MMACs"


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    result = call(tmp_path, "--samples", "1")
    assert result.exit_code == 2
    assert "is not empty: pass --force to write into it, or name another folder" in result.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]
    assert call(tmp_path, "--samples", "1", "--force").exit_code == 0
    assert (tmp_path / "0" / "arch.json").exists()


def test_a_folder_that_another_process_writes_is_refused(tmp_path: Path) -> None:
    with one_writer(tmp_path):
        result = call(tmp_path, "--samples", "1")
    assert result.exit_code == 2
    assert f"another process writes {tmp_path}: wait for it, or stop it" in result.stderr
    (tmp_path / ".qnas-killed.part").write_text("half")
    assert call(tmp_path, "--samples", "1").exit_code == 0
    assert [each.name for each in tmp_path.iterdir()] == ["0"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    result = call(tmp_path / "file")
    assert (result.exit_code, result.stderr) == (2, f"error: {tmp_path / 'file'} is a file: name a folder\n")


def test_a_space_of_one_candidate_each_has_one_architecture() -> None:
    space = from_document(
        {**SMALL.to_document(), "bits": [4], "operations": {"*": ["simple_3x3"]}}, "one", "one"
    )
    assert len(bitops(space, 1, 0, 1e12)) == 1
