"""qnas-bench report: what it reads, what it draws, and that no file can do anything to the page."""

import copy
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.errors import UsageError
from qnas.html_page import page
from qnas.runtime_bench.cli import main
from qnas.runtime_bench.gate.output import as_document
from qnas.runtime_bench.page.axes import linear_axis, log_axis, si, spread_axis, tick_text, with_interval
from qnas.runtime_bench.page.charts import Dot, Moment, Strip, history_chart, interval_chart, scatter_chart
from qnas.runtime_bench.page.report_page import report_page
from qnas.runtime_bench.page.sections import shown
from qnas.runtime_bench.page.series import change, histories, measurements, newest
from qnas.runtime_bench.result_files import BenchFile, read_result
from qnas.runtime_bench.stats import Estimate
from qnas.testing.bench_results import candidate, document, gate_report
from qnas.testing.pages import EVIL, JUNK, Tags, chromium, opened, places
from qnas.testing.text_models import INTEGER_CONV, text_model


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def read(folder: Path, *documents: dict[str, Any]) -> dict[Path, BenchFile]:
    """The documents as files, named 0.json, 1.json, ..."""
    paths = [write(folder / f"{index}.json", each) for index, each in enumerate(documents)]
    files = {path: read_result(path) for path in paths}
    return {path: each for path, each in files.items() if isinstance(each, BenchFile)}


def report(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


# The command -------------------------------------------------------------------------------------------


def test_what_the_bench_writes_becomes_a_page_with_its_numbers(tmp_path: Path) -> None:
    model, measured, target = tmp_path / "integer.onnx", tmp_path / "r.json", tmp_path / "r.html"
    onnx.save(text_model(INTEGER_CONV), model)
    bench = CliRunner().invoke(
        main, [str(model), "--device", "cpu", "--shape", "16x24", "--runs", "20", "--json", str(measured)]
    )
    assert bench.exit_code == 0, bench.output
    assert report(measured, "-o", target).exit_code == 0
    written = Tags(target.read_text())
    taken = datetime.fromisoformat(json.loads(measured.read_text())["taken"])
    assert abs((datetime.now(UTC) - taken).total_seconds()) < 60
    assert "1. integer.onnx" in written.text
    assert "1x3x16x24" in written.text
    assert si(12 * 27 * 16 * 24) in written.words  # MACs: 12 channels of 3 x 3 x 3, at 16 x 24 places
    assert si(64 * 12 * 27 * 16 * 24) in written.words


def test_the_page_is_written_whole_and_not_twice(tmp_path: Path) -> None:
    source, target = write(tmp_path / "a.json", document()), tmp_path / "page.html"
    assert report(source, "-o", target).exit_code == 0
    refused = report(source, "-o", target)
    assert (refused.exit_code, "--force" in refused.output) == (2, True)
    assert report(source, "-o", target, "--force").exit_code == 0


def test_a_bad_file_among_good_ones_leaves_no_page(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "a.json", document()), write(tmp_path / "b.json", {"format": "other"})
    result = report(good, bad, "-o", tmp_path / "page.html")
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert "b.json: format is 'other'" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


# Reading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("version",), 1, "is version 1 of the format, this is 2"),
        (("taken",), "2026-01-31T12:00:00", "taken is '2026-01-31T12:00:00', not a time such as"),
        (("taken",), "yesterday", "taken is 'yesterday'"),
        (("settings", "threads"), True, "settings.threads is True, not a whole number"),
        (("models",), {}, "models is an object of 0, not a list"),
        (("models", 0), 3, "models[0] is 3, not an object"),
        (
            ("models", 0, "latency_ns", "value"),
            0,
            "models[0].latency_ns.value is 0, not a number from 1e-06",
        ),
        (
            ("models", 0, "latency_ns", "low"),
            9e6,
            "models[0].latency_ns: low is 9e+06, not below high, 2.2e+06",
        ),
        (("models", 0, "latency_ns", "high"), 1e999, "is not JSON ("),
        (("models", 0, "bytes"), -1, "models[0].bytes is -1"),
        (("models", 0, "load_ns"), 10**400, "models[0].load_ns is huge, not a number from 1e-06 to 1e+24"),
        (("models", 0, "load_ns"), 2e24, "models[0].load_ns is 2e+24, not a number"),
        (("models", 0, "bytes"), 10**40, "models[0].bytes is huge"),
        (("models", 0, "path"), "x" * 5000, "models[0].path is 'xxx"),
        (("models", 0, "warnings"), [1], "models[0].warnings[0] is 1, not a text"),
        (("models", 0, "inputs", "image", "shape"), [1.5], "models[0].inputs.image.shape[0] is 1.5"),
        (("models", 0, "profile", "rows", 0, "integer"), "yes", "profile.rows[0].integer is 'yes'"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(
    tmp_path: Path, place: tuple[str | int, ...], value: object, said: str
) -> None:
    content: Any = document()
    inner = content
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(UsageError) as caught:
        read_result(write(tmp_path / "file.json", content))
    assert "file.json" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "[" * 100_000, '{"format": "qnas-bench", "version": 1e400}', "1" * 5000],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"file\.json"):
        read_result(path)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_result(tmp_path / "missing.json")


WHOLE = document(candidate(), candidate("b.onnx", "openvino", 50.0))
WHOLE["failures"] = [{"path": "c.onnx", "device": "litert", "reason": "crashed"}]
GATE = json.loads(json.dumps(as_document(gate_report(Estimate(1.15, 1.1, 1.2)))))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_document_is_refused_by_name_or_drawn_and_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = copy.deepcopy(data.draw(st.sampled_from([WHOLE, GATE])))
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(places(content)))
        inner: Any = content
        for step in path:
            inner = inner[step]
        if data.draw(st.booleans()):
            inner[last] = data.draw(st.sampled_from(JUNK))
        else:
            del inner[last]
        if not places(content):
            break
    file = write(tmp_path_factory.mktemp("fuzz") / "file.json", content)
    others = [write(file.parent / f"{each['format']}.json", each) for each in (WHOLE, GATE)]
    try:
        written = Tags(report_page([file, *others]))
    except UsageError:
        with pytest.raises(UsageError, match=r"file\.json"):
            report_page([file])
        return
    assert not written.tags & {"script", "img", "iframe", "object", "a", "link"}
    assert not {name for name in written.attributes if name.startswith("on")}


def test_no_text_of_a_file_becomes_markup(tmp_path: Path) -> None:
    def poison(value: Any, key: str = "") -> Any:
        match value:
            case dict():
                return {name: poison(inner, name) for name, inner in value.items()}
            case list():
                return [poison(inner, key) for inner in value]
            case str() if key not in ("format", "taken"):
                return EVIL + value
        return value

    content = poison(WHOLE)
    content["models"][0]["warnings"] = [EVIL]
    content["settings"]["device_options"] = {EVIL: EVIL}
    content["models"][0]["cost"]["uncovered"] = [EVIL]
    later = poison(WHOLE) | {"taken": "2026-02-01T00:00:00+00:00"}
    later["models"][0]["environment"]["runtime"] = EVIL
    names = ("<b>.json", "later.json", "gate.json")
    files = [
        write(tmp_path / name, each) for name, each in zip(names, (content, later, poison(GATE)), strict=True)
    ]
    html = report_page(files)
    clean = Tags(
        report_page([write(tmp_path / f"{i}.json", each) for i, each in enumerate((WHOLE, WHOLE, GATE))])
    )
    written = Tags(html)
    assert EVIL in html.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"')
    assert written.tags - clean.tags <= {"ol", "li"}
    assert written.attributes - clean.attributes <= {"title"}  # the whole of a long name
    assert written.links == []


# Series ------------------------------------------------------------------------------------------------


def test_measurements_are_ordered_by_when_they_were_taken_and_the_newest_is_compared(tmp_path: Path) -> None:
    late = document(candidate(milliseconds=3), taken="2026-01-02T01:00:00+02:00")  # 23:00 of the day before
    early = document(candidate(milliseconds=4), taken="2026-01-01T22:00:00+00:00")
    found = measurements(read(tmp_path, late, early))
    assert [each.candidate.latency_ns.value for each in found] == [4e6, 3e6]
    assert [each.candidate.latency_ns.value for each in newest(found)] == [3e6]
    assert histories(found) == (found,)


def test_what_was_measured_otherwise_is_no_history(tmp_path: Path) -> None:
    other = candidate()
    other["inputs"]["image"]["shape"] = [1, 3, 64, 64]
    threads = document()
    threads["settings"]["threads"] = 2
    chosen = document()
    chosen["settings"]["device_options"] = {"precision": "f32"}
    documents = (document(), document(candidate(device="openvino")), document(other), threads, chosen)
    found = measurements(read(tmp_path, *documents))
    assert len(newest(found)) == 5
    assert histories(found) == ()
    assert [each.label for each in shown(newest(found))] == [
        "cpu, 1 thread, 1x3x64x48",
        "openvino, 1 thread, 1x3x64x48",
        "cpu, 1 thread, 1x3x64x64",
        "cpu, 2 threads, 1x3x64x48",
        "cpu (precision=f32), 1 thread, 1x3x64x48",
    ]


def test_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    models = (candidate("new/a.onnx"), candidate("old/a.onnx"), candidate("b.onnx"), candidate("b.onnx"))
    found = measurements(read(tmp_path, document(*models)))
    assert [each.model for each in found] == ["new/a.onnx", "old/a.onnx", "b.onnx", "b.onnx (2)"]


def test_machines_stand_side_by_side(tmp_path: Path) -> None:
    pi = candidate(milliseconds=30)
    pi["environment"]["cpu"] = "ARM 0x41 0xd0b"
    rows = shown(newest(measurements(read(tmp_path, document(), document(pi)))))
    assert [(each.number, each.series, each.where) for each in rows] == [
        (1, 0, "cpu, AMD EPYC"),
        (1, 1, "cpu, ARM 0x41 0xd0b"),
    ]


def test_changes_of_environment_and_model_are_said(tmp_path: Path) -> None:
    upgraded, retrained = candidate(), candidate()
    upgraded["environment"]["runtime"] = retrained["environment"]["runtime"] = "onnxruntime 1.32.0"
    retrained["sha256"] = "f" * 64
    first, second, third, fourth = measurements(
        read(tmp_path, document(), document(upgraded), document(retrained), document(retrained))
    )
    found = change(first, second)
    assert found is not None
    assert found.texts == ("runtime: onnxruntime 1.31.1, then onnxruntime 1.32.0",)
    assert not found.comparable
    other = change(second, third)
    assert other is not None
    assert other.texts == ("another model: sha256 25c481b5, then ffffffff",)
    assert other.comparable
    assert change(third, fourth) is None


# Axes and charts ---------------------------------------------------------------------------------------


def test_axes_end_at_round_numbers() -> None:
    axis = log_axis([0.6, 31])
    assert (axis.low, axis.high) == (0.5, 50)
    assert axis.ticks == (0.5, 1, 2, 5, 10, 20, 50)
    assert log_axis([0.003, 7e4]).ticks == (0.01, 1, 100, 10_000)
    assert linear_axis(0, 2.3).ticks == pytest.approx((0, 1, 2, 3))
    assert linear_axis(480, 660).ticks == pytest.approx((450, 500, 550, 600, 650, 700))


def test_places_are_percent_of_the_axis() -> None:
    assert linear_axis(0, 10).place(2.5) == pytest.approx(25)
    assert log_axis([1, 100]).place(10) == pytest.approx(50)


def test_an_axis_is_logarithmic_beyond_twenty_times() -> None:
    assert not spread_axis([1, 20]).logarithmic
    assert spread_axis([1, 20.1]).logarithmic


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(1e-15, 1e15), min_size=1, max_size=5))
def test_every_value_lies_on_its_axis_which_has_few_numbers(values: list[float]) -> None:
    for axis in (log_axis(values), linear_axis(0, max(values)), linear_axis(min(values), max(values))):
        assert all(-1e-6 <= axis.place(each) <= 100 + 1e-6 for each in values)
        assert 1 <= len(axis.ticks) <= 7
        assert all(-1e-6 <= axis.place(tick) <= 100 + 1e-6 for tick in axis.ticks)


def test_numbers_are_written_with_prefixes() -> None:
    assert [si(value, "s") for value in (0.00229, 5.8e-4, 12.34, 9.996e-4)] == [
        "2.29 ms", "580 µs", "12.3 s", "1.00 ms"
    ]  # fmt: skip
    assert [si(value) for value in (0, 999, 999.9, 20.89e9)] == ["0", "999", "1.00 k", "20.9 G"]
    assert [tick_text(value, "s") for value in (0, 5e-4, 0.0026)] == ["0", "500 µs", "2.6 ms"]
    assert with_interval(0.00229, 0.00226, 0.00232, "s") == "2.29 ms [2.26, 2.32]"
    assert with_interval(9.99e-4, 9.5e-4, 1.2e-3, "s") == "999 µs [950, 1200]"


def test_an_interval_is_drawn_from_its_low_to_its_high_end() -> None:
    html = interval_chart([("a", [Strip("cpu", 0, Estimate(5, 2.5, 10), "5 s")])], "s")
    assert '<line x1="25.00%" x2="100.00%"' in html
    assert '<svg x="50.00%" y="50.00%"' in html


def test_labels_of_a_scatter_chart_do_not_lie_on_each_other() -> None:
    dots = [Dot(1, 1, 0, "a", ""), Dot(1.01, 1.01, 0, "b", ""), Dot(90, 90, 1, "c", "")]
    words = Tags(scatter_chart(dots, "", "", "s")).words
    assert [word for word in words if word in "abc" and word] == ["a", "c"]


def test_a_history_is_joined_only_where_it_can_be_compared() -> None:
    moments = [
        Moment(Estimate(1, 0.9, 1.1), "day 1", "", "", False),
        Moment(Estimate(2, 1.9, 2.1), "day 2", "", "", True),
        Moment(Estimate(3, 2.9, 3.1), "day 3", "", "1", False),
        Moment(Estimate(4, 3.9, 4.1), "day 4", "", "2", True),
    ]
    html = history_chart(moments, 0, "", "s")
    assert html.count('class="joined"') == 2
    assert [place for place in re.findall(r'<line x1="([\d.]+%)"[^>]*class="change"', html)] == [
        "50.00%",
        "75.00%",
    ]


# The page ----------------------------------------------------------------------------------------------


def test_all_that_was_measured_is_on_the_page(tmp_path: Path) -> None:
    content = copy.deepcopy(WHOLE)
    content["models"][0]["warnings"] = ["half of the rounds spread by 9%"]
    content["models"][1] |= {"cost": None, "delegation": None, "peak_memory_bytes": None, "profile": None}
    html = Tags(report_page([write(tmp_path / "a.json", content)]))
    for words in (
        "2.00 ms [1.80, 2.20]", "50.0 ms [45.0, 55.0]", "2.50 ms", "3.50 ms", "6.00 ms", "20.0 ms", "67.4 MB",
        "143 kB", "1.00 k", "16.0 k", "64.0 k", "75.0%", "50.0%", "unknown", "50.0 µs", "40.0", "8.0%",
        "half of the rounds spread by 9%", "c.onnx", "crashed", "onnxruntime 1.31.1",
    ):  # fmt: skip
        assert words in html.words, words
    assert "Of 1 of the measurements no BitOps are known." in html.text
    assert "History" not in html.words


def test_large_models_show_their_largest_nodes(tmp_path: Path) -> None:
    content = document()
    node = content["models"][0]["cost"]["nodes"][0]
    content["models"][0]["cost"]["nodes"] = [
        node | {"name": f"node {index}", "executed_bitops": index} for index in range(130)
    ]
    words = Tags(report_page([write(tmp_path / "a.json", content)])).words
    assert "node 30" in words
    assert "node 29" not in words
    assert "30 smaller nodes of 130 are left out." in words


def test_gates_are_shown_with_ratio_verdict_and_time(tmp_path: Path) -> None:
    reports = (
        gate_report(Estimate(1.15, 1.1, 1.2)),
        gate_report(Estimate(1.15, float("-inf"), float("inf"))),
    )
    files = [write(tmp_path / f"{i}.json", as_document(each)) for i, each in enumerate(reports)]
    words = Tags(report_page(files)).words
    for expected in (
        "fail", "1. new.onnx", "2. new.onnx", "old.onnx", "12.3 s", "1.1500 [1.1000, 1.2000]",
        "1.1500 [?, ?]", "<= 1.0500", "90 bytes", "AMD EPYC",
    ):  # fmt: skip
        assert expected in words, expected


def gate_document(taken: str | None, ratio: Estimate, **environment: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(as_document(gate_report(ratio))))
    content["environment"] |= environment
    return {key: each for key, each in (content | {"taken": taken}).items() if each is not None}


def test_gates_of_the_same_models_are_a_history_in_the_order_of_their_time(tmp_path: Path) -> None:
    documents = (
        gate_document("2026-01-03T10:00:00+00:00", Estimate(1.3, 1.2, 1.4), runtime="onnxruntime 1.32.0"),
        gate_document("2026-01-01T10:00:00+00:00", Estimate(1.1, 1.05, 1.2)),
        gate_document("2026-01-02T10:00:00+00:00", Estimate(1.2, 1.15, 1.25)),
        gate_document("2026-01-02T11:00:00+00:00", Estimate(1.2, float("-inf"), float("inf"))),
    )
    files = [write(tmp_path / f"{index}.json", each) for index, each in enumerate(documents)]
    page = report_page(files)
    assert "new.onnx against old.onnx, cpu, 1 thread" in Tags(page).words
    assert re.findall(r"<title>(\S+ \S+) UTC, (\d\.json): fail, (\S+) ", page) == [
        ("2026-01-01 10:00", "1.json", "1.1000"),
        ("2026-01-02 10:00", "2.json", "1.2000"),
        ("2026-01-03 10:00", "0.json", "1.3000"),
    ]  # without an interval there is no dot
    assert page.count('class="joined"') == 1  # not across another runtime
    assert "2026-01-03 10:00: runtime: onnxruntime 1.31.1, then onnxruntime 1.32.0" in Tags(page).words


def test_gates_of_before_their_time_was_written_are_read_and_are_no_history(tmp_path: Path) -> None:
    documents = [gate_document(None, Estimate(1.1, 1.05, 1.2)) for _ in range(2)]
    files = [write(tmp_path / f"{index}.json", each) for index, each in enumerate(documents)]
    words = Tags(report_page(files)).words
    assert "1.1000 [1.0500, 1.2000]" in words
    assert "new.onnx against old.onnx, cpu, 1 thread" not in words


def test_ratio_of_a_confirmed_gate_is_that_of_the_second_sample(tmp_path: Path) -> None:
    confirmed = gate_report(Estimate(1.15, 1.1, 1.2), confirmed=Estimate(1.12, 1.08, 1.16))
    words = Tags(report_page([write(tmp_path / "gate.json", as_document(confirmed))])).words
    assert "1.1200 [1.0800, 1.1600]" in words


@pytest.mark.skipif(chromium() is None, reason="no chromium: install one, or name it in QNAS_CHROMIUM")
def test_a_browser_shows_the_page_without_complaint_and_loads_nothing(tmp_path: Path) -> None:
    browser = chromium()
    assert browser is not None
    later = copy.deepcopy(WHOLE) | {"taken": "2026-02-01T00:00:00+00:00"}
    contents = (WHOLE, later, GATE)
    files = [write(tmp_path / f"{i}.json", each) for i, each in enumerate(contents)]
    target = tmp_path / "page.html"
    assert report(*files, "-o", target).exit_code == 0
    html, complaints = opened(browser, target, tmp_path / "profile")
    assert complaints == []
    shown_by_browser, written = Tags(html), Tags(target.read_text())
    assert shown_by_browser.tags == written.tags
    assert shown_by_browser.text.rstrip("|\n") == written.text.rstrip("|\n")
    assert shown_by_browser.links == []

    control = tmp_path / "control.html"  # what is loaded from elsewhere does not go unnoticed
    control.write_text(page("control", "").replace("</body>", '<img src="http://localhost:9/x.png"></body>'))
    _, complaints = opened(browser, control, tmp_path / "profile")
    assert any("Content Security Policy" in line for line in complaints)
