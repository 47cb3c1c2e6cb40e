"""qnas-search report: what it reads, what it draws, and that no file can do anything to the page."""

import base64
import copy
import io
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qnas.cost.network_cost import network_cost
from qnas.errors import QnasError, UsageError
from qnas.html_page import Markup
from qnas.images.evaluation import shrink
from qnas.images.quality import psnr_y
from qnas.images.resize import resize_bicubic
from qnas.network.architecture import Architecture, Choice, find_architecture
from qnas.network.lowering import lower
from qnas.search.report import crops, curves
from qnas.search.report.drawing import architecture_section
from qnas.search.report.graph import SINK, picture, ranges
from qnas.search.report.layout import GAP, LANE_GAP, TRACK, Drawing, place
from qnas.search.report.numbers import percent, si
from qnas.search.report.page import report, write_report
from qnas.search.report.plots import plot
from qnas.search.report_cli import main
from qnas.search.runs.result import write_result
from qnas.search.runs.run_folder import SearchPlan, write_begun
from qnas.search.space.search_space import SearchSpace, find_space
from qnas.search.supernet.recipe import SearchRecipe
from qnas.testing.pages import EVIL, JUNK, Tags, chromium, opened, places
from qnas.testing.random_networks import build, noise, random_architecture
from qnas.torch.checkpoint import save_found
from qnas.torch.environment import environment

BASIC = find_space("basic-small")  # 8 variables of 6 operations and 2 bit widths
ESPCN = replace(
    find_space("edmips-espcn"), separate_bits=False
)  # 3 variables of one operation and 2 bit widths
RECIPE = SearchRecipe(data=("photographs",), epochs=4, epoch_steps=10, warm_up=1)


def alphas(space: SearchSpace, certainty: float) -> dict[str, list[list[float]]]:
    """Of every variable: the last operation at the fewest bits has this probability, the others the rest."""
    tables = {}
    for name in space.variables:
        rows = [[0.0] * len(space.bits) for _ in space.candidates(name)]
        others = len(rows) * len(space.bits) - 1
        rows[-1][0] = math.log(certainty * others / (1 - certainty))
        tables[name] = rows
    return tables


def step(number: int) -> dict[str, Any]:
    return {"kind": "step", "epoch": (number - 1) // 10, "step": number, "loss": 30 / number,
            "alpha_loss": None if number <= 10 else 31 / number, "expected_cost": 2.5e9, "best_cost": 2.25e9,
            "entropy": 19.0, "entropy_weight": 0.0, "images_per_second": 90.0, "seconds": 1.0}  # fmt: skip


def epoch(number: int, certainty: float, space: SearchSpace = ESPCN) -> dict[str, Any]:
    """What is written after epoch `number`, the first of which is 0."""
    return {"kind": "epoch", "epoch": number, "step": 10 * (number + 1), "loss": 3.0,
            "alphas": alphas(space, certainty), "choices": {}, "certainty": {}, "cost": 1.0,
            "expected_cost": 1.0, "seconds": 1.0}  # fmt: skip


def log_of(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


WHOLE_LOG = [step(5), epoch(0, 0.5), step(15), epoch(1, 0.6), step(25), epoch(2, 0.75)]


def run_folder(folder: Path, log: str | None = None, space: SearchSpace = ESPCN) -> Path:
    """A search under way."""
    folder.mkdir(parents=True, exist_ok=True)
    write_begun(folder, SearchPlan(space, RECIPE, (48, 64)), environment(torch.device("cpu"), 1), {})
    (folder / "log.jsonl").write_text(log_of(*WHOLE_LOG) if log is None else log)
    return folder


def finished(folder: Path, architecture: Architecture, method: str = "search") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_result(folder, architecture, space_name="basic", method=method, image=(48, 64), seconds=300)
    return folder


def member(name: str, bitops: float | None, psnr: float | None, **others: Any) -> dict[str, Any]:
    values = {"name": name, "method": "search", "space": "basic", "bits": [4, 8], "penalty": 1e-4, "seed": 0,
              "macs": bitops and bitops / 16, "bitops": bitops, "psnr_y": psnr, "ssim": psnr and 0.8,
              "on_front": False, "failed": None}  # fmt: skip
    return values | others


MEMBERS = [
    member("dear", 4e9, 30.5),
    member("cheap", 1e9, 28.125),
    member("worse", 2e9, 28.0, seed=1),
    member("middle", 2e9, 29.5, method="random", penalty=None),
    member("broken", None, None, failed="RuntimeError: out of memory"),
]


def planned(method: str, seed: int, lr: float) -> dict[str, Any]:
    """A member of sweep.json."""
    return {"method": method, "space": "/spaces/basic.json", "bits": [4, 8], "seed": seed, "image": [32, 32],
            "penalty": 1e-4, "search": {"epochs": 7, "lr": lr, "data": ["T91"]},
            "train": {"steps": 100, "data": ["T91"], "validate": "Set5"}}  # fmt: skip


PLANNED: dict[str, Any] = {
    "format": "qnas-sweep",
    "version": 1,
    "members": {
        "first-s0": planned("search", 0, 0.1),
        "first-s1": planned("search", 1, 0.2),
        "second-s0": planned("uniform-lsq", 0, 0.1),
    },
}


def sweep_folder(folder: Path, members: Any = MEMBERS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(PLANNED))
    document = {"format": "qnas-pareto", "version": 1, "members": members}
    (folder / "pareto.json").write_text(json.dumps(document))
    return folder


def words(folder: Path) -> list[str]:
    return Tags(report(folder)).words


def said(folder: Path) -> str:
    return Tags(report(folder)).text


# The drawing -------------------------------------------------------------------------------------------


def mixed(name: str) -> Architecture:
    """The named network, every other layer at 8 bits."""
    found = find_architecture(name)
    bits = {slot: 4 + 4 * (index % 2) for index, slot in enumerate(found.layers)}
    return replace(found, layers={slot: Choice(c.op, bits[slot]) for slot, c in found.layers.items()})


NETWORKS = ("basic-w48-example", "rfdn-adq-w48-example", "espcn-w4", "srresnet-w8", "rfdn-w4")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_that_was_searched_is_drawn_with_its_operation_and_bits(name: str) -> None:
    architecture = mixed(name)
    html = architecture_section(architecture, (32, 32))
    hovers = re.findall(r"<title>([^<]*), [\d,]+ MACs, [\d,]+ BitOps</title>", html)
    first = {}  # of equal blocks only one is drawn
    for block in picture(architecture, (32, 32)).blocks:
        first |= {f"body.{number}.": f"body.{block.numbers[0]}." for number in block.numbers}
    for slot, choice in architecture.layers.items():
        prefix = re.match(r"body\.\d+\.", slot)
        drawn = slot.replace(prefix[0], first[prefix[0]]) if prefix else slot
        op = "ESA" if choice.op == "esa" else choice.op
        assert f"{drawn}: {op}, {choice.bits} bits" in hovers


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["basic", "rfdn_space"]), st.integers(0, 1000))
def test_boxes_hold_the_cost_of_any_network_and_lines_run_forward(space: Any, seed: int) -> None:
    check_boxes(random_architecture(space, seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_boxes_hold_the_cost_of_equal_blocks_together(name: str) -> None:
    check_boxes(mixed(name))


def check_boxes(architecture: Architecture) -> None:
    drawn = picture(architecture, (24, 20))
    counted = network_cost(lower(architecture), 24, 20)
    assert (drawn.macs, drawn.bitops) == (counted.macs, counted.bitops)
    frame = sum(box.bitops for box in drawn.frame.boxes.values())
    blocks = sum(box.bitops for block in drawn.blocks for box in block.graph.boxes.values())
    outside = sum(box.bitops for box in drawn.frame.boxes.values() if box.kind != "block")
    assert frame == outside + blocks == counted.bitops
    for graph in (drawn.frame, *(block.graph for block in drawn.blocks)):
        order = list(graph.boxes)
        assert all(order.index(source) < order.index(target) for source, target in graph.edges)
        assert {source for source, _ in graph.edges} == set(order[:-1])  # one sink, the last
        assert {target for _, target in graph.edges} == set(order[1:])  # one source, the first


def test_equal_blocks_are_drawn_once_wherever_they_stand() -> None:
    one = find_architecture("basic-w4")
    assert [block.title for block in picture(one, (32, 32)).blocks] == ["blocks 0\N{EN DASH}2, × 3"]
    other = replace(one, layers={**one.layers, "body.1.parallel": Choice("simple_1x1", 8)})
    drawn = picture(other, (32, 32))
    assert [block.title for block in drawn.blocks] == ["blocks 0, 2, × 2", "block 1"]
    assert [row.title for row in drawn.rows.values()] == ["block 0", "block 2", "block 1"]
    assert "Blocks 0, 2, × 2" in architecture_section(other, (32, 32))


def test_what_is_drawn_of_a_block_of_the_basic_space() -> None:
    architecture = replace(find_architecture("basic-w4"), normalization="adq")
    (block,) = picture(architecture, (32, 32)).blocks
    names = {key: box.text if box.kind == "plain" else box.name for key, box in block.graph.boxes.items()}
    assert {(names[a], names[b]) for a, b in block.graph.edges} == {
        ("(in)", "ADQ"),
        ("ADQ", "body.0.conv_0"),
        ("body.0.conv_0", "body.0.conv_1"),
        ("ADQ", "body.0.parallel"),
        ("body.0.conv_1", "body.0.add"),
        ("body.0.parallel", "body.0.add"),
        ("(in)", "body.0.skip"),
        ("body.0.add", "body.0.skip"),
    }


def test_the_frame_of_srresnet_has_its_bilinear_skip() -> None:
    frame = picture(find_architecture("srresnet-w8"), (32, 32)).frame
    texts = {key: box.text for key, box in frame.boxes.items()}
    assert "bilinear ×4" in texts.values()
    assert [source for source, target in frame.edges if texts[target] == "bilinear ×4"] == ["(image) image"]
    assert list(texts)[-1] == SINK


def test_a_paper_network_is_drawn_as_its_twin() -> None:
    deployable = find_architecture("rfdn-adq-w48-example")
    paper = replace(deployable, arithmetic="paper", residual_bits=None)
    assert picture(paper, (32, 32)).frame.edges == picture(deployable, (32, 32)).frame.edges


def test_rows_of_numbers_are_written_by_their_ends() -> None:
    assert ranges([0, 1, 2, 5, 7, 8]) == "0\N{EN DASH}2, 5, 7\N{EN DASH}8"


def box(width: float, half: float = 10) -> Drawing:
    return Drawing(width, half, half, Markup("<g></g>"))


def test_a_chain_is_as_wide_as_its_boxes_and_gaps() -> None:
    shape = place({"a": box(30), "b": box(50, 20)}, [("a", "b")])
    assert (shape.width, shape.above, shape.below) == (80 + GAP, 20, 20)
    assert f"translate({30 + GAP:g} 0)" in shape.markup


def test_branches_lie_below_and_skips_above_the_main_road() -> None:
    shapes = {"a": box(10), "b": box(60), "c": box(40), "d": box(10)}
    shape = place(shapes, [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("a", "d")])
    assert shape.width == 10 + GAP + 60 + GAP + 10
    assert (shape.above, shape.below) == (10 + TRACK + 4, 10 + LANE_GAP + 20)
    assert (
        f"translate({10 + GAP + 10:g} {10 + LANE_GAP + 10:g})" in shape.markup
    )  # in the middle of b's column


def test_branches_beside_each_other_lie_below_each_other_the_longest_lowest() -> None:
    shapes = {name: box(40) for name in ("in", "main", "first", "then", "second", "out")}
    edges = [("in", "main"), ("in", "first"), ("main", "then"), ("main", "second"), ("then", "out"),
             ("first", "out"), ("second", "out")]  # fmt: skip
    shapes |= {"main": box(60), "then": box(60)}
    shape = place(shapes, edges)
    lane = LANE_GAP + 20
    assert shape.below == 10 + 2 * lane
    heights = re.findall(r"translate\([\d.]+ ([\d.]+)\)", shape.markup)
    assert [float(y) for y in heights] == [0, 0, 2 * lane, 0, lane, 0]


@pytest.mark.parametrize("name", NETWORKS)
def test_no_two_layers_lie_on_each_other(name: str) -> None:
    html = architecture_section(mixed(name), (32, 32))
    for drawing in re.findall(r'<svg [^>]*class="drawing".*?</svg>', html):
        boxes = []
        at: list[tuple[float, float]] = [(0.0, 0.0)]
        for closing, move, attributes in re.findall(
            r"<(/?)g(?: transform=\"translate\(([^)]*)\)\")?[^>]*>|<rect ([^>]*class=\"layer[^>]*)>", drawing
        ):
            if attributes:
                values = dict(re.findall(r'(\w+)="([^"]*)"', attributes))
                boxes.append((*at[-1], float(values["width"]), float(values["height"])))
            elif closing:
                at.pop()
            else:
                dx, dy = map(float, move.split()) if move else (0.0, 0.0)
                at.append((at[-1][0] + dx, at[-1][1] + dy))
        for index, (x, y, width, height) in enumerate(boxes):
            for a, b, w, h in boxes[index + 1 :]:
                assert a >= x + width or x >= a + w or b >= y + height or y >= b + h


# A run -------------------------------------------------------------------------------------------------


def test_a_search_under_way_shows_what_it_would_decide_now(tmp_path: Path) -> None:
    log = log_of(step(5), epoch(0, 0.1, BASIC), step(15), epoch(1, 0.4, BASIC), epoch(2, 0.75, BASIC))
    shown = words(run_folder(tmp_path / "x", log, BASIC))
    assert "Search x" in shown
    assert "Under way in the space basic-small: step 30 of 40." in shown
    assert shown.count("75%") == 8  # of each variable
    assert "75% to 75%" in shown
    assert "body.*.conv_0" in shown
    assert "conv_3x1_1x3" in shown  # the last operation
    assert BASIC.candidates("head.0")[-1] == "conv_3x1_1x3"
    assert any("as the alphas are now" in word for word in shown)
    assert any("for an image of 48×64 pixels" in word for word in shown)


def test_a_finished_search_shows_its_architecture_and_cost(tmp_path: Path) -> None:
    architecture = find_architecture("basic-w48-example")
    folder = finished(run_folder(tmp_path / "x"), architecture)
    counted = network_cost(lower(architecture), 48, 64)
    shown = words(folder)
    assert "Found by search in the space basic." in shown
    assert {si(counted.macs), si(counted.bitops), "5 min"} <= set(shown)
    assert {"L1, grey levels", "Entropy, nats, and its weight", "Cost, GBitOps", "warm-up"} <= set(shown)


def test_an_architecture_alone_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "arch.json").write_text(find_architecture("espcn-w4").to_json())
    shown = words(tmp_path)
    assert "An architecture, without the search that found it." in shown
    assert "conv_2" in shown
    assert "How the search decided" not in shown


def test_a_search_that_has_written_nothing_yet_has_a_page(tmp_path: Path) -> None:
    assert "no step has been written yet" in said(run_folder(tmp_path, log=""))
    (tmp_path / "log.jsonl").unlink()
    assert "no step has been written yet" in said(tmp_path)


def test_a_line_that_a_dying_machine_left_is_counted_and_left_out(tmp_path: Path) -> None:
    folder = run_folder(
        tmp_path, log=log_of(step(5)) + '{"kind": "step", "st\n' + log_of(epoch(0, 0.6))[:-40]
    )
    assert "2 lines of the log could not be read and are left out." in words(folder)
    assert "step 5 of 40" in said(folder)


def test_of_a_step_that_was_made_twice_the_later_counts(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, log_of(epoch(0, 0.1), epoch(1, 0.9), epoch(0, 0.2), epoch(1, 0.7)))
    assert words(folder).count("70%") == 3


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run and no sweep"):
        report(tmp_path)
    with pytest.raises(UsageError, match="holds no run and no sweep"):
        report(tmp_path / "missing")


@pytest.mark.parametrize(
    ("record", "key", "value", "reason"),
    [
        (step(5), "loss", "low", "log.jsonl:2: loss is 'low', not a number"),
        (step(5), "step", -1, "log.jsonl:2: step is -1, not a whole number"),
        (step(5), "step", True, "log.jsonl:2: step is True"),
        (step(5), "entropy", 10**400, "entropy is huge"),
        (step(5), "kind", None, "kind is None, not a text"),
        (epoch(0, 0.5), "alphas", {}, "log.jsonl:2: alphas.conv_0 is not 1 x 2 numbers"),
        (epoch(0, 0.5), "alphas", [], "log.jsonl:2: alphas is a list of 0, not an object"),
        (
            epoch(0, 0.5),
            "alphas",
            {name: [[0.0]] for name in ESPCN.variables},
            "conv_0 is not 1 x 2 numbers",
        ),
        (epoch(0, 0.5), "alphas", dict.fromkeys(ESPCN.variables, "no"), "alphas.conv_0 is 'no', not a list"),
    ],
)
def test_a_wrong_record_is_named_with_its_place(
    tmp_path: Path, record: dict[str, Any], key: str, value: object, reason: str
) -> None:
    folder = run_folder(tmp_path, log_of(step(1), record | {key: value}))
    with pytest.raises(UsageError) as caught:
        report(folder)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("search.json", "{", "search.json is not JSON"),
        ("arch.json", "{}", "arch.json: space is missing"),
        ("arch.json", "[", "arch.json is not JSON"),
        ("result.json", "[1]", "result.json is no record of a search"),
        ("result.json", '{"format": "other", "version": 1}', "format is 'other', not 'qnas-search-result'"),
        ("result.json", '{"format": "qnas-search-result", "version": NaN}', "result.json is not JSON"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, file: str, content: str, reason: str) -> None:
    folder = run_folder(tmp_path)
    (folder / file).write_text(content)
    with pytest.raises(QnasError) as caught:
        report(folder)
    assert reason in str(caught.value)


def test_lines_of_many_points_are_thinned_to_their_means() -> None:
    points = [(float(x), 2.0 * x) for x in range(900)]
    thin = curves.thinned(points)
    assert len(thin) == curves.MOST_POINTS == 300
    assert thin[:2] == [(1, 2), (4, 8)]
    assert curves.thinned(points[:7]) == points[:7]
    assert curves.thinned([]) == []


# A sweep -----------------------------------------------------------------------------------------------


def test_the_table_has_the_front_first_and_names_what_failed(tmp_path: Path) -> None:
    tags = Tags(report(sweep_folder(tmp_path / "s")))
    names = [each["name"] for each in MEMBERS] + list(PLANNED["members"])
    rows = tags.text[tags.text.index("least sure") :]
    order = sorted(names, key=rows.index)
    assert order == ["cheap", "middle", "dear", "worse", "broken", "first-s0", "first-s1", "second-s0"]
    assert tags.words.count("BitOps, MACs") == 3  # on both fronts
    assert "RuntimeError: out of memory" in tags.words
    assert {"28.12", "29.50", "30.50", "1.00 G", "62.5 M", "0.0001"} <= set(tags.words)
    assert "middle: 29.50 dB, 2.00 GBitOps, 125 MMACs" in tags.words  # under the pointer


def test_points_lie_where_their_numbers_are(tmp_path: Path) -> None:
    html = report(sweep_folder(tmp_path))
    at = {}
    for name in ("cheap", "middle", "dear"):
        title = html.index(f"<title>{name}: ")
        x, y = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', html[title:])[0]
        at[name] = (float(x), float(y))
    assert (at["middle"][0] - at["cheap"][0]) * 2 == pytest.approx(at["dear"][0] - at["middle"][0], abs=0.01)
    rise = (at["cheap"][1] - at["middle"][1]) / (at["middle"][1] - at["dear"][1])
    assert rise == pytest.approx((29.5 - 28.125) / (30.5 - 29.5), rel=1e-4)


def test_members_under_way_are_known_by_the_plan_and_their_folders(tmp_path: Path) -> None:
    folder = sweep_folder(tmp_path)
    (folder / "pareto.json").unlink()
    trained = finished(run_folder(folder / "members" / "first-s0"), find_architecture("basic-w4"))
    (trained / "trained.json").write_text('{"psnr_y": 29.125, "ssim": 0.81, "seed": 0}')
    finished(folder / "members" / "second-s0", find_architecture("espcn-w8"), "uniform-lsq")
    (folder / "members" / "first-s1").mkdir()
    (folder / "members" / "first-s1" / "failed.txt").write_text("killed\n")
    tags = Tags(report(folder))
    assert {"first-s0", "29.12", "second-s0", "uniform-lsq", "first-s1", "killed", "basic"} <= set(tags.words)
    assert "members|3|trained|1|failed|1|to come|1|on the front|1" in tags.text
    for shared in ("search epochs|7|", "train steps|100"):  # what all share, which is not --lr
        assert shared in tags.text
    assert "search lr" not in tags.words
    assert any(word.startswith("first-s0, 29.12 dB: basic, 3 blocks, 36 channels") for word in tags.words)


def test_a_member_whose_files_are_wrong_does_not_cost_the_page(tmp_path: Path) -> None:
    folder = sweep_folder(tmp_path)
    run_folder(folder / "members" / "cheap", log="[]\n")
    shown = words(folder)
    assert any("log.jsonl:1 is no record of a search" in word for word in shown)
    assert "28.12" in shown


def test_a_name_is_no_path_out_of_the_sweep(tmp_path: Path) -> None:
    finished(tmp_path / "outside", find_architecture("espcn-w4"))
    folder = sweep_folder(tmp_path / "s", [member("../../outside", 1e9, 28.0)])
    (folder / "members").mkdir()
    assert "Architectures" not in words(folder)


def test_costs_that_spread_are_drawn_on_a_logarithmic_axis(tmp_path: Path) -> None:
    folder = sweep_folder(
        tmp_path, [member("a", 1e9, 28.0), member("b", 1e10, 29.0), member("c", 1e11, 30.0)]
    )
    html = report(folder)
    places_x = [
        float(re.findall(r'<use [^>]*x="([\d.]+)"', html[html.index(f"<title>{name}: ") :])[0])
        for name in "abc"
    ]
    assert places_x[2] - places_x[1] == pytest.approx(places_x[1] - places_x[0], abs=0.01)


@pytest.mark.parametrize("members", [3, [1], [{}], [member("a", 1e9, 28.0) | {"bitops": "much"}]])
def test_a_wrong_table_is_refused_with_its_name(tmp_path: Path, members: object) -> None:
    with pytest.raises(UsageError, match=r"pareto\.json"):
        report(sweep_folder(tmp_path, members))


# Crops -------------------------------------------------------------------------------------------------


def test_the_crop_is_where_the_difference_is() -> None:
    original = np.zeros((300, 280, 3), np.uint8)
    upscaled = original.copy()
    upscaled[150:160, 200:210] = 255
    rows, columns = crops.hardest(upscaled, original, 4)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (96, 96)
    assert rows.start <= 150 < 160 <= rows.stop
    assert columns.start <= 200 < 210 <= columns.stop


def test_an_image_smaller_than_a_crop_is_shown_whole() -> None:
    image = np.zeros((40, 97, 3), np.uint8)
    assert crops.hardest(image, image, 4) == (slice(0, 40), slice(0, 96))


def test_a_trained_network_is_shown_between_bicubic_and_original(tmp_path: Path) -> None:
    architecture = replace(find_architecture("espcn-w8"), scale=2)
    folder = tmp_path / "x"
    finished(folder, architecture)
    save_found(folder / "found.pt", architecture, build(architecture).network, {})
    photograph = noise(60, 71)
    Image.fromarray(photograph).save(tmp_path / "<b>.png")
    html = report(folder, [tmp_path / "<b>.png"])
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="([^"]*)"', html)
    assert [label for _, label in pictures] == ["bicubic", "x", "original"]
    bicubic, _, original = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data, _ in pictures
    )
    cut = photograph[:, :70]
    np.testing.assert_array_equal(original, cut)
    np.testing.assert_array_equal(bicubic, resize_bicubic(shrink(cut, 2), (60, 70)))
    tags = Tags(html)
    assert f"{psnr_y(bicubic, cut, 0):.2f} dB" in tags.words
    assert "<b>.png, ×2" in tags.words


def test_a_damaged_network_is_said_and_the_page_is_made(tmp_path: Path) -> None:
    folder = finished(tmp_path / "x", find_architecture("espcn-w8"))
    (folder / "found.pt").write_bytes(b"PK")
    assert "is truncated or no PyTorch checkpoint" in said(folder)


# The page ----------------------------------------------------------------------------------------------


def evil_run(folder: Path) -> Path:
    folder = finished(run_folder(folder), find_architecture("basic-w4"), method=EVIL)
    plan = json.loads((folder / "search.json").read_text())
    del plan["digest"]
    plan["space_name"] = plan["recipe"]["data"][0] = EVIL
    (folder / "search.json").write_text(json.dumps(plan))
    return folder


def test_no_text_of_a_file_becomes_markup(tmp_path: Path) -> None:
    evil = [member(EVIL + str(index), 1e9 * (index + 1), 28.0 + index, method=EVIL, space=EVIL)
            for index in range(2)]  # fmt: skip
    evil.append(member("$x$ \x00", 5e9, 31.0, failed=EVIL))
    for folder in (evil_run(tmp_path / "run"), sweep_folder(tmp_path / "sweep", evil)):
        html = report(folder)
        tags = Tags(html)
        assert EVIL in "".join(tags.words)
        assert not tags.tags & {"script", "img", "iframe", "object", "a", "link"}
        assert not {name for name in tags.attributes if name.startswith("on")}
        assert not [link for link in tags.links if link and re.search(r"[<>\"]|//", link)]


def test_nothing_is_named_that_lies_elsewhere(tmp_path: Path) -> None:
    for folder in (run_folder(tmp_path / "run"), sweep_folder(tmp_path / "sweep")):
        assert not re.search(r"https?:|//www|url\((?!#)", report(folder))


def test_ids_are_unique_and_references_find_them(tmp_path: Path) -> None:
    html = report(run_folder(tmp_path))
    ids = re.findall(r' id="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', html)) <= {(name, "") for name in ids} | {
        ("", name) for name in ids
    }


def test_the_same_folder_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    run, sweep = run_folder(tmp_path / "run"), sweep_folder(tmp_path / "sweep")
    program = """
import sys
from pathlib import Path
from qnas.search.report.page import write_report
for folder in sys.argv[1:]:
    write_report(Path(folder), Path(folder, "report.html"), force=False)
"""
    environment = {**os.environ, "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, "-c", program, run, sweep], check=True, env=environment)
    for folder in (run, sweep):
        assert (folder / "report.html").read_text() == report(folder)


def test_colours_of_plots_follow_the_page() -> None:
    html = plot(
        "p", "label", (100, 80), lambda figure: figure.add_axes((0, 0, 1, 1)).plot([0, 1], color="#2a6fdb")
    )
    assert "stroke: var(--c0)" in html
    assert not re.search(r"#[0-9a-f]{6}", html)
    assert "font-family" not in html


def test_numbers_are_short() -> None:
    assert [si(value) for value in (0, 12, 999.9, 2.4286e9, 37_945_344)] == [
        "0",
        "12.0",
        "1.00 k",
        "2.43 G",
        "37.9 M",
    ]
    assert si(2.4286e9, "BitOps") == "2.43 GBitOps"
    shares = {0: "0%", 1e-9: "<0.1%", 0.0042: "0.4%", 0.042: "4.2%", 0.42: "42%", 1: "100%"}
    assert [percent(share) for share in shares] == list(shares.values())


def test_the_command_writes_into_the_folder_and_not_twice(tmp_path: Path) -> None:
    folder = finished(tmp_path / "x", find_architecture("espcn-w8"), "uniform-lsq")
    first = CliRunner().invoke(main, [str(folder)])
    assert (first.exit_code, first.output) == (0, f"wrote {folder / 'report.html'}\n")
    refused = CliRunner().invoke(main, [str(folder)])
    assert (refused.exit_code, refused.output.count("\n"), "--force" in refused.output) == (2, 1, True)
    assert CliRunner().invoke(main, [str(folder), "--force"]).exit_code == 0
    elsewhere = CliRunner().invoke(main, [str(folder), "-o", str(tmp_path / "p.html")])
    assert elsewhere.exit_code == 0
    assert (tmp_path / "p.html").read_bytes() == (folder / "report.html").read_bytes()


def test_no_page_is_left_when_something_is_wrong(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    (folder / "arch.json").write_text("{}")
    before = sorted(folder.iterdir())
    with pytest.raises(QnasError):
        write_report(folder, folder / "report.html", force=False)
    assert sorted(folder.iterdir()) == before


WHOLE = {
    "pareto.json": {"format": "qnas-pareto", "version": 1, "members": MEMBERS},
    "sweep.json": PLANNED,
}


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_damaged_sweep_is_refused_by_name_or_drawn_and_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("sweep")
    contents = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from([place for place in places(contents) if len(place) > 1]))
        inner: Any = contents
        for key in path:
            inner = inner[key]
        if data.draw(st.booleans()):
            inner[last] = data.draw(st.sampled_from(JUNK))
        else:
            del inner[last]
        if not any(len(place) > 1 for place in places(contents)):
            break
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    try:
        tags = Tags(report(folder))
    except QnasError:
        with pytest.raises(QnasError, match=r"(pareto|sweep)\.json"):
            report(folder)
        return
    assert not tags.tags & {"script", "img", "iframe", "object", "a", "link"}
    assert not {name for name in tags.attributes if name.startswith("on")}


@pytest.mark.skipif(chromium() is None, reason="no chromium: install one, or name it in QNAS_CHROMIUM")
def test_a_browser_shows_both_pages_without_complaint(tmp_path: Path) -> None:
    browser = chromium()
    assert browser is not None
    run = finished(run_folder(tmp_path / "run"), mixed("rfdn-adq-w48-example"))
    for folder in (run, sweep_folder(tmp_path / "sweep")):
        target = folder / "report.html"
        write_report(folder, target, force=False)
        html, complaints = opened(browser, target, tmp_path / "profile")
        assert complaints == []
        assert Tags(html).text.rstrip("|\n") == Tags(target.read_text()).text.rstrip("|\n")
