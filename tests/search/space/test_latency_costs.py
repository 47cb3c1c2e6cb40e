"""The cost of a search in measured milliseconds: the table, its sizes, and what is wrong with a file."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.errors import UsageError
from qnas.network.architecture import Choice
from qnas.search.space.latency_costs import latency_costs, read_times
from qnas.search.space.search_space import SearchSpace, from_document

SPACE = {
    "network": "basic", "channels": 6, "blocks": 2, "scale": 2, "identical_blocks": True, "bits": [4, 8],
    "operations": {"*": ["simple_1x1", "simple_3x3"]},
}  # fmt: skip
# (channels, scale) of the layers -> ms of a 1x1 convolution at 8 bits
ONCE = {(3, 6, 1): 1, (6, 6, 1): 10, (6, 12, 1): 100, (3, 3, 2): 1000}
ROW = {"op": "simple_1x1", "in_channels": 3, "out_channels": 6, "bits": 8, "height": 8, "width": 8, "ms": 1}


def space(**changes: Any) -> SearchSpace:
    return from_document(SPACE | changes, "small")


def rows(*sizes: tuple[int, int], factor: float = 1.0) -> list[dict[str, Any]]:
    """Twice the time for a 3x3, 0.5 ms more for 4 bits; times `factor`."""
    return [
        {
            "op": op, "in_channels": read, "out_channels": written, "bits": bits, "scale": scale,
            "height": height * scale, "width": width * scale,
            "ms": factor * (once * (2 if op == "simple_3x3" else 1) + (0.5 if bits == 4 else 0)),
        }
        for (read, written, scale), once in ONCE.items()
        for op in ("simple_1x1", "simple_3x3")
        for bits in (4, 8)
        for height, width in sizes
    ]  # fmt: skip


def table(folder: Path, operations: Any, **changes: Any) -> Path:
    path = folder / "cpu.json"
    document = {"format": "qnas-latency-model", "version": 1, "operations": operations} | changes
    path.write_text(json.dumps(document))
    return path


def test_a_network_costs_the_sum_of_its_layers_each_at_its_own_channels_and_size(tmp_path: Path) -> None:
    costs = latency_costs(space(), table(tmp_path, rows((8, 8))), 8, 8)
    choices = {name: Choice("simple_1x1", 8) for name in space().variables}
    # head.0 + head.1 + three layers in each of two blocks + upsample + two tails
    assert costs.of(choices) == 1 + 10 + 2 * 3 * 10 + 100 + 2 * 1000
    assert costs.searched["body.*.conv_0"][Choice("simple_3x3", 4)] == 2 * (2 * 10 + 0.5)
    assert costs.searched["tail.1"][Choice("simple_3x3", 8)] == 2000
    assert costs.fixed == 0
    assert costs.smallest == costs.of(choices)


@pytest.mark.parametrize(
    ("size", "factor"),
    [
        ((8, 8), 1.0),
        ((16, 16), 3.0),
        ((8, 32), 3.0),  # as many pixels as 16x16
        ((12, 12), 1 + (3 - 1) * (144 - 64) / (256 - 64)),
        ((4, 4), 16 / 64),
        ((32, 32), 3 * 1024 / 256),
    ],
)
def test_time_is_linear_in_pixels_between_measured_sizes_and_proportional_beyond(
    tmp_path: Path, size: tuple[int, int], factor: float
) -> None:
    path = table(tmp_path, rows((8, 8)) + rows((16, 16), factor=3.0))
    costs = latency_costs(space(), path, *size)
    assert costs.searched["head.0"][Choice("simple_3x3", 4)] == pytest.approx(2.5 * factor)
    assert costs.searched["tail.0"][Choice("simple_1x1", 8)] == pytest.approx(1000 * factor)


def test_a_size_that_was_measured_counts_before_one_with_as_many_pixels(tmp_path: Path) -> None:
    path = table(tmp_path, rows((16, 16)) + rows((8, 32), factor=2.0))
    for size, factor in (((16, 16), 1.0), ((8, 32), 2.0)):
        assert latency_costs(space(), path, *size).searched["head.0"][Choice("simple_1x1", 8)] == factor


def test_a_row_without_scale_is_of_the_images_own_size(tmp_path: Path) -> None:
    short = [{k: v for k, v in row.items() if k != "scale" or v != 1} for row in rows((8, 8))]
    assert latency_costs(space(), table(tmp_path, short), 8, 8).largest > 0


def test_layers_behind_the_shuffle_take_no_time_measured_before_it(tmp_path: Path) -> None:
    plain = [row for row in rows((8, 8), (16, 16)) if row["scale"] == 1]
    same = [row | {"in_channels": 3, "out_channels": 3} for row in plain if row["in_channels"] == 3]
    with pytest.raises(UsageError, match=r"layer tail\.0, 2 times the image"):
        latency_costs(space(), table(tmp_path, plain + same), 8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": [2, 8]}, r"no time of simple_1x1 from 3 to 6 channels at 2 bits \(layer head\.0\): add it"),
        ({"bits": [8, 32]}, "at 32 bits .*: only integer kernels are timed, leave 32 out of the bits"),
        ({"channels": 9}, r"simple_1x1 from 3 to 9 channels .*qnas-bench operations --model .*cpu\.json"),
        ({"operations": {"head.1": ["simple_5x5"], "*": ["simple_1x1"]}}, "simple_5x5 from 6 to 6 channels"),
    ],
)
def test_the_first_candidate_without_a_time_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        latency_costs(space(**changes), table(tmp_path, rows((8, 8))), 8, 8)


def test_times_that_are_all_0_weigh_nothing_and_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="all times are 0"):
        latency_costs(space(), table(tmp_path, rows((8, 8), factor=0.0)), 8, 8)


@pytest.mark.parametrize(
    ("operations", "changes", "message"),
    [
        (
            [],
            {"format": "qnas-bench"},
            r"no latency model \(format is 'qnas-bench', not 'qnas-latency-model'\): name a file of",
        ),
        ([], {"version": 2}, "version 2 of the format, this is 1: name"),
        ([], {"version": True}, "version True"),
        ({}, {}, "operations is an object of 0, not a list"),
        ([ROW, 7], {}, r"operations\[1\] is 7, not an object"),
        ([ROW | {"color": 1}], {}, r"operations\[0\]\.color is unknown, not one of op, in_channels"),
        ([ROW | {"bits": "8"}], {}, "bits is '8', not a whole number from 1 to 2147483647"),
        ([ROW | {"height": 0}], {}, "height is 0, not a whole number from 1"),
        ([ROW | {"scale": 1.0}], {}, r"scale is 1\.0, not a whole number"),
        ([ROW | {"width": True}], {}, "width is True, not a whole number"),
        ([ROW | {"op": 3}], {}, "op is 3, not a text"),
        ([ROW | {"ms": -1}], {}, r"operations\[0\]\.ms is -1, not a number from 0"),
        ([ROW | {"ms": float("nan")}], {}, "is not JSON"),
        ([ROW | {"ms": float("inf")}], {}, "is not JSON"),
        ([ROW, ROW | {"ms": 2}], {}, r"operations\[1\] has another time of simple_1x1 at 8x8"),
    ],
)
def test_damaged_table_is_refused_in_one_line(
    tmp_path: Path, operations: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read_times(table(tmp_path, operations, **changes))


def test_unreadable_table_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    with pytest.raises(UsageError, match="No such file"):
        read_times(path)
    for text in ("{", "[" * 100_000, "9" * 5000):
        path.write_text(text)
        with pytest.raises(UsageError, match="not JSON"):
            read_times(path)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*ROW, "scale", "operations", "version"]), ANYTHING)
def test_no_value_in_a_table_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    in_row = key in (*ROW, "scale")
    whole = {"operations": [ROW | {key: value}]} if in_row else {"operations": [ROW], key: value}
    try:
        read_times(table(tmp_path_factory.mktemp("fuzz"), **whole))
    except UsageError:
        return
