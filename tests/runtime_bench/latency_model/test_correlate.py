"""Rank correlations, and the folder of models that they are taken over."""

import json
from html.parser import HTMLParser
from math import isnan
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.runtime_bench.correlate_cli import main
from qnas.runtime_bench.latency_model.correlation import Row, Study, correlations
from qnas.runtime_bench.latency_model.rank import kendall, ranks, spearman
from qnas.runtime_bench.page.correlation_page import correlation_page
from qnas.testing.text_models import text_model

CONV = """
net (uint8[1, 3, h, w] image) => (uint8[1, CHANNELS, h, w] out)
<float one = {0.00390625}, uint8 zero = {0}, int8[CHANNELS, 3, 3, 3] k,
 float[CHANNELS] scales, int8[CHANNELS] zeros>
{
    i = DequantizeLinear (image, one, zero)
    w8 = DequantizeLinear <axis = 0> (k, scales, zeros)
    c = Conv <pads = [1, 1, 1, 1]> (i, w8)
    out = QuantizeLinear (c, one, zero)
}"""


def test_equal_values_share_the_mean_of_their_places() -> None:
    assert ranks([10, 30, 20, 20]).tolist() == [1, 4, 2.5, 2.5]


def test_spearman_of_the_textbook_example() -> None:
    iq = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]  # Wikipedia, Spearman's rank correlation coefficient
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert spearman(iq, hours) == pytest.approx(-29 / 165)


def test_kendall_with_a_tie_on_each_side_by_hand() -> None:
    # Pairs: (1,2) tied left, (3,4) tied right, (1,3) (1,4) (2,3) (2,4) concordant: 4 / sqrt(5 * 5).
    assert kendall([1, 1, 2, 3], [1, 2, 3, 3]) == pytest.approx(0.8)


def test_kendall_by_hand_where_pairs_disagree() -> None:
    assert kendall([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx((5 - 1) / 6)


def test_what_never_varies_has_no_order() -> None:
    assert isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert isnan(kendall([1, 2, 3], [5, 5, 5]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=30))
def test_both_agree_with_scipy_whatever_the_ties(pairs: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    left, right = zip(*pairs, strict=True)
    if len(set(left)) == 1 or len(set(right)) == 1:
        return
    assert spearman(left, right) == pytest.approx(stats.spearmanr(left, right).statistic)
    assert kendall(left, right) == pytest.approx(stats.kendalltau(left, right).statistic)


def test_correlations_take_the_networks_that_have_both() -> None:
    rows = [
        Row("a", {"MACs": 1, "predicted ms": 3}, {"cpu": 10, "litert": 3}),
        Row("b", {"MACs": 2, "predicted ms": 2}, {"cpu": 20}),
        Row("c", {"MACs": 3, "predicted ms": 1}, {"cpu": 30, "litert": 1}),
    ]
    found = {(c.cost, c.device): c for c in correlations(rows)}
    assert set(found) == {("MACs", "cpu"), ("predicted ms", "cpu")}  # two networks are no order
    assert found["MACs", "cpu"].spearman == found["MACs", "cpu"].kendall == 1
    assert found["predicted ms", "cpu"].spearman == -1
    assert found["MACs", "cpu"].networks == 3


class Elements(HTMLParser):
    """Counts the dots and keeps what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.dots = 0
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.dots += (dict(attrs).get("class") or "").startswith("mark ")
        self.loads += [name for name, _ in attrs if name in ("src", "href")] + [tag] * (tag == "script")


def test_page_shows_every_network_and_loads_nothing() -> None:
    rows = tuple(Row(f"<{name}>", {"MACs": 1e9 * k}, {"cpu": 2.0 * k}) for k, name in enumerate("abcd", 1))
    text = correlation_page(Study(rows, correlations(rows), ("x failed",)), "Costs")
    elements = Elements()
    elements.feed(text)
    assert (elements.dots, elements.loads) == (4, [])
    assert "<a>" not in text
    assert "<title>&lt;a&gt;: MACs 1.00 G, latency 2.00 ms</title>" in text
    assert "x failed" in text


def test_a_network_that_costs_nothing_is_no_dot_on_logarithmic_axes() -> None:
    costs = ({"MACs": 0, "predicted ms": 1}, {"MACs": 1e9, "predicted ms": 2}, {"MACs": 2e9})
    rows = tuple(Row(str(k), each, {"cpu": 2.0 * k, "litert": 3}) for k, each in enumerate(costs, 1))
    elements = Elements()
    elements.feed(correlation_page(Study(rows, correlations(rows), ()), "Costs"))
    assert elements.dots == 2 * 2  # MACs on both devices; two networks have a prediction, which is no order


def test_a_cost_that_is_the_same_for_all_networks_has_no_correlation() -> None:
    rows = tuple(Row(str(k), {"MACs": 0}, {"cpu": 2.0 * k}) for k in range(1, 4))
    study = Study(rows, correlations(rows), ())
    (found,) = json.loads(json.dumps(study.to_document(), allow_nan=False))["correlations"]
    assert (found["spearman"], found["low"], found["high"], found["kendall"]) == (None,) * 4
    assert "all are 0" in correlation_page(study, "Costs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three convolutions of quite different widths."""
    models = tmp_path / "models"
    models.mkdir()
    for channels in (4, 32, 128):
        onnx.save(text_model(CONV.replace("CHANNELS", str(channels))), models / f"c{channels}.onnx")
    return models


def test_folder_is_measured_and_written_as_page_and_json(folder: Path) -> None:
    page, numbers = folder / "out.html", folder / "out.json"
    arguments = [folder, "--shape", "64x64", "--seconds", "0.02", "-o", page, "--json", numbers]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    document = json.loads(numbers.read_text())
    assert [row["name"] for row in document["rows"]] == ["c128", "c32", "c4"]
    assert [row["costs"]["MACs"] for row in document["rows"]] == [27 * 4096 * c for c in (128, 32, 4)]
    assert document["rows"][0]["ms"]["cpu"] > document["rows"][2]["ms"]["cpu"]
    assert page.read_text().startswith("<!DOCTYPE html>")
    again = CliRunner().invoke(main, [str(folder), "-o", str(page)])
    assert again.exit_code == 2
    assert "--force" in again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "is no folder"),
        (["."], "an order needs 3"),
        (["models", "--device", "litert"], "the folder has none"),
        (["models", "--device", "abacus"], "no device 'abacus'"),
        (["models", "--model", "absent.json"], "absent.json cannot be read"),
    ],
)
def test_wrong_use_ends_with_one_line_and_2(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(folder.parent)
    result = CliRunner().invoke(main, [*arguments, "-o", "page.html"])
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not Path("page.html").exists()


def test_ranks_are_a_permutation_where_nothing_is_equal() -> None:
    values = np.random.default_rng(0).permutation(50)
    assert ranks(values).tolist() == (values + 1).tolist()
