"""The front of (BitOps, PSNR-Y), and the files that hold it."""

import json
import math
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from qnas.search.runs.pareto import COLUMNS, Entry, front, ordered, write_pareto


def entry(name: str, bitops: int | None = None, psnr: float | None = None, **more: object) -> Entry:
    return Entry(
        name, "search", "basic", (4, 8), 1e-4, 0, bitops and bitops // 64, bitops, psnr, psnr and 0.5, **more
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], []),
        ([(1, 20)], [True]),
        ([(1, 20), (2, 21)], [True, True]),  # more costs more
        ([(1, 20), (2, 20)], [True, False]),  # as good for more
        ([(1, 20), (1, 21)], [False, True]),  # better for as much
        ([(3, 25), (1, 20), (2, 19), (4, 24.9), (2, 22)], [True, True, False, False, True]),
        ([(1, 20), (1, 20), (2, 19)], [True, True, False]),  # equal points stand together
        ([None, (5, 1), None], [False, True, False]),
    ],
)
def test_the_front_holds_what_nothing_dominates(
    points: list[tuple[float, float] | None], expected: list[bool]
) -> None:
    assert front(points) == expected


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_the_front_is_the_one_of_the_definition(points: list[tuple[int, int]]) -> None:
    dominated = [any(c <= a and q >= b and (c, q) != (a, b) for c, q in points) for a, b in points]
    assert front([(float(a), float(b)) for a, b in points]) == [not each for each in dominated]


@pytest.mark.parametrize(
    "without", [entry("a"), entry("b", 64, math.nan), entry("c", 64, 20.0, failed="no images")]
)
def test_what_has_no_quality_has_no_point(without: Entry) -> None:
    assert without.point is None


def test_rows_are_in_the_order_of_cost_and_those_without_come_last() -> None:
    entries = [
        entry("failed", failed="x"),
        entry("dear", 640, 21.0),
        entry("poor", 320, 19.0),
        entry("a", 64, 20.0),
    ]
    assert [(each.name, best) for each, best in ordered(entries)] == [
        ("a", True), ("poor", False), ("dear", True), ("failed", False),
    ]  # fmt: skip


def test_both_files_hold_every_member(tmp_path: Path) -> None:
    write_pareto(tmp_path, [entry("b", failed='killed, by "SIGKILL"'), entry("a", 640, 21.5)])
    assert (tmp_path / "pareto.csv").read_text() == (
        "name,method,space,bits,penalty,seed,macs,bitops,psnr_y,ssim,on_front,failed\n"
        "a,search,basic,4 8,0.0001,0,10,640,21.5,0.5,True,\n"
        'b,search,basic,4 8,0.0001,0,,,,,False,"killed, by ""SIGKILL"""\n'
    )
    document = json.loads((tmp_path / "pareto.json").read_text())
    assert (document["format"], document["version"]) == ("qnas-pareto", 1)
    first, second = document["members"]
    assert tuple(first) == COLUMNS
    assert first == {
        "name": "a", "method": "search", "space": "basic", "bits": [4, 8], "penalty": 1e-4, "seed": 0,
        "macs": 10, "bitops": 640, "psnr_y": 21.5, "ssim": 0.5, "on_front": True, "failed": None,
    }  # fmt: skip
    assert (second["bitops"], second["on_front"], second["failed"]) == (None, False, 'killed, by "SIGKILL"')
