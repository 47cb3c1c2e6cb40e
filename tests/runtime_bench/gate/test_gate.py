"""The command `qnas-bench gate`: its limits, rows, verdicts and files."""

import contextlib
import json
import os
import shutil
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.errors import UsageError
from qnas.images.evaluation import shrink
from qnas.images.files import read_image
from qnas.images.quality import psnr_y
from qnas.runtime_bench.environment import Environment
from qnas.runtime_bench.gate import instructions, pairs
from qnas.runtime_bench.gate.limits import Limit, parse_increase, parse_limit, parse_share
from qnas.runtime_bench.gate.output import junit, markdown
from qnas.runtime_bench.gate.sequential import Status
from qnas.runtime_bench.gate.verdict import GateReport, Row, overall
from qnas.runtime_bench.gate_cli import main
from qnas.testing.places import ROOT
from qnas.testing.text_models import FLOAT_CONV, INTEGER_CONV, text_model

SMALL = ("--shape", "16x16")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx.save(text_model(FLOAT_CONV), folder / "float.onnx")
    onnx.save(text_model(INTEGER_CONV), folder / "integer.onnx")
    slow = "\n".join(f"r{k} = Conv <pads = [4, 4, 4, 4]> (r{k - 1}, s)" for k in range(1, 9))
    text = FLOAT_CONV.replace("float[12] b>", "float[12] b, float[12, 12, 9, 9] s>")
    text = text.replace("r = Relu (c)", f"r0 = Relu (c)\n{slow}").replace('"CRD"> (r)', '"CRD"> (r8)')
    onnx.save(text_model(text), folder / "slow.onnx")
    return folder


def gate(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def rows(path: Path) -> dict[str, dict[str, Any]]:
    return {row["gate"]: row for row in json.loads(path.read_text())["rows"]}


# Limits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "increase"),
    [("5%", 0.05), ("+5%", 0.05), ("2.5%", 0.025), ("0.05", 0.05), ("0%", 0), ("100%", 1), ("999%", 9.99)],
)
def test_increase_is_a_percentage_or_a_fraction(text: str, increase: float) -> None:
    assert parse_increase("--max-slowdown", text) == pytest.approx(increase)


@pytest.mark.parametrize(
    "text",
    [
        "5",
        "1",
        "-5%",
        "5 %",
        " 5%",
        "5%%",
        "five",
        "",
        "%",
        "+",
        "1000%",
        "1e-2",
        "0,05",
        "nan",
        "inf",
        "\u0665%",
    ],
)
def test_increase_that_could_mean_two_things_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--max-slowdown .*: write a percentage, as 5%"):
        parse_increase("--max-slowdown", text)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("120000", Limit(120000, False)), ("1.5G", Limit(1.5e9, False)), ("250M", Limit(2.5e8, False)),
        ("3k", Limit(3000, False)), ("+2%", Limit(0.02, True)), ("+0%", Limit(0, True)),
    ],
)  # fmt: skip
def test_limit_is_a_count_or_an_increase(text: str, limit: Limit) -> None:
    assert parse_limit("--max-size", text) == limit


@pytest.mark.parametrize(
    "text", ["2%", "-1", "+2", "1.5 G", "1K", "1g", "1Gi", "1e9", "", "+-2%", "²", "1_000"]
)
def test_limit_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--max-size .*: write"):
        parse_limit("--max-size", text)


def test_relative_limit_is_of_the_old_model() -> None:
    assert Limit(0.5, True).most(200) == 300
    assert Limit(7, False).most(None) == 7


@given(st.text(max_size=12) | st.from_regex(r"\+?[0-9.]{0,6}%?", fullmatch=True))
def test_any_text_is_a_limit_or_refused(text: str) -> None:
    for parse in (parse_increase, parse_limit, parse_share):
        with contextlib.suppress(UsageError):
            found = parse("--limit", text)
            assert 0 <= (found.value if isinstance(found, Limit) else found) < 1e30


# Gates that count --------------------------------------------------------------------------------------


def test_every_counted_gate_is_a_row_with_its_numbers(models: Path, tmp_path: Path) -> None:
    new, old = models / "integer.onnx", models / "float.onnx"
    result = gate(
        new, "--against", old, *SMALL, "--no-timing", "--max-size", "+0%", "--max-macs", "82.944k",
        "--max-bitops", "+0%", "--min-integer", "100%", "--json", tmp_path / "gate.json",
    )  # fmt: skip
    assert (result.exit_code, result.stderr) == (0, "")
    found = rows(tmp_path / "gate.json")
    assert {gate: row["status"] for gate, row in found.items()} == dict.fromkeys(found, "pass")
    assert (found["size"]["new"], found["size"]["limit"]) == (new.stat().st_size, old.stat().st_size)
    macs = 12 * 27 * 16 * 16  # 12 outputs of 3x3x3 at every pixel
    assert found["MACs"]["new"] == found["MACs"]["old"] == found["MACs"]["limit"] == macs
    assert (found["BitOps"]["new"], found["BitOps"]["old"]) == (64 * macs, 1024 * macs)
    assert (found["integer share"]["new"], found["integer share"]["old"]) == (1.0, 0.0)


def test_counted_gate_that_fails_ends_the_gate_before_anything_is_timed(models: Path, tmp_path: Path) -> None:
    result = gate(
        models / "float.onnx", "--against", models / "integer.onnx", *SMALL, "--max-macs", "1",
        "--max-size", "1M", "--min-integer", "0.5", "--budget", "1000", "--json", tmp_path / "gate.json",
    )  # fmt: skip
    assert result.exit_code == 1
    found = rows(tmp_path / "gate.json")
    assert {gate: row["status"] for gate, row in found.items()} == {
        "size": "pass", "MACs": "fail", "integer share": "fail", "latency": "skipped",
    }  # fmt: skip
    assert found["latency"]["detail"] == "not timed: another gate failed"


def test_psnr_is_that_of_the_images_and_its_drop_that_of_the_old_model(
    models: Path, photographs: Path, tmp_path: Path
) -> None:
    nearest = """
    net (uint8[n, 3, h, w] image) => (uint8[n, 3, y, x] upscaled)
    <float[4] sizes = {1.0, 1.0, 2.0, 2.0}>
    { upscaled = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",
      nearest_mode = "floor"> (image, , sizes) }"""
    onnx.save(text_model(nearest), tmp_path / "nearest.onnx")
    scores = []
    for path in sorted(photographs.iterdir()):
        hr = read_image(path)
        scores.append(psnr_y(np.repeat(np.repeat(shrink(hr, 2), 2, 0), 2, 1), hr, 2))
    new, old = tmp_path / "nearest.onnx", models / "integer.onnx"
    result = gate(
        new, "--against", old, "--no-timing", "--images", photographs,
        "--min-psnr", np.mean(scores) - 0.01, "--max-psnr-drop", 0, "--json", tmp_path / "gate.json",
    )  # fmt: skip
    assert result.exit_code == 0
    found = rows(tmp_path / "gate.json")
    assert found["PSNR"]["new"] == pytest.approx(np.mean(scores))
    assert found["PSNR drop"]["limit"] == found["PSNR"]["old"] < found["PSNR"]["new"]
    swapped = gate(old, "--against", new, "--no-timing", "--images", photographs, "--max-psnr-drop", 0.5)
    assert swapped.exit_code == 1


# Gates that time ---------------------------------------------------------------------------------------


def test_much_slower_model_fails_in_every_report(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "SHORTEST", 0.01)
    monkeypatch.setattr(pairs, "LONGEST", 0.01)
    files = [tmp_path / name for name in ("gate.json", "gate.xml", "gate.md")]
    result = gate(
        models / "slow.onnx", "--against", models / "float.onnx", "--shape", "16x16",
        "--json", files[0], "--junit", files[1], "--markdown", files[2],
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    document = json.loads(files[0].read_text())
    assert (document["format"], document["version"]) == ("qnas-gate", 1)
    assert datetime.fromisoformat(document["taken"]).tzinfo is UTC
    assert (document["status"], document["exit_code"], document["threads"]) == ("fail", 1, 1)
    timing = document["timing"]
    assert timing["first"]["status"] == timing["confirmation"]["status"] == "fail"
    assert 1.05 < timing["first"]["ratio"]["low"] <= timing["first"]["ratio"]["value"]
    assert len(timing["rounds_ns"]) == len(timing["first"]["ratios"] + timing["confirmation"]["ratios"]) >= 13
    suite = ET.parse(files[1]).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("1", "1", "0")
    failure = suite.find("testcase[@name='latency']/failure")
    assert failure is not None
    assert "allowed <= 1.0500" in (failure.get("message") or "")
    assert "❌ slow.onnx: fail" in files[2].read_text()
    assert "confirmed by a second sample" in result.stdout


def test_budget_that_ends_too_early_is_inconclusive_where_nothing_can_be_counted(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    model = models / "float.onnx"
    result = gate(model, "--against", model, *SMALL, "--budget", "0.01", "--json", tmp_path / "gate.json")
    assert result.exit_code == 3
    document = json.loads((tmp_path / "gate.json").read_text())
    assert document["timing"]["first"]["ratio"]["low"] is None  # infinite
    assert len(document["timing"]["first"]["ratios"]) == 1
    assert "note: both models are the same file" in result.stdout
    assert "instructions do not decide it: valgrind is not installed" in result.stdout


# Wrong use ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing is gated"),
        (("--against", "integer.onnx", "--baseline", "b.json"), "give one"),
        (("--against", "integer.onnx", "--max-slowdown", "5"), "--max-slowdown 5: write a percentage"),
        (("--against", "missing.onnx"), "missing.onnx is not a file"),
        (("--against", "corrupt.onnx"), "corrupt.onnx is no readable ONNX model"),
        (("--against", "fixed.onnx"), "takes 1x3x128x128, "),
        (("--max-size", "+2%"), "--max-size compares with an old model"),
        (("--instructions",), "--instructions compares with an old model"),
        (("--max-psnr-drop", "1", "--images", "."), "--max-psnr-drop compares with an old model"),
        (("--min-psnr", "20"), "--images goes with"),
        (("--max-size", "1M", "--images", "."), "--images goes with"),
        (("--max-size", "1M", "--device", "npu"), "there is no device 'npu'"),
        (("--max-size", "1M", "--shape", "0x8"), "--shape 0x8: write sizes as"),
        (("--max-size", "1M", "--json", "float.onnx", "--force"), "would replace what is read"),
        (("--max-size", "1M", "--json", "a", "--junit", "a"), "is named for two outputs"),
        (("--max-size", "1M", "--json", "corrupt.onnx"), "pass --force"),
        (("--min-psnr", "2", "--images", "."), "float.onnx upscales no image"),
    ],
)
def test_wrong_use_is_one_line_exit_code_two_and_no_files(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    for name in ("float.onnx", "integer.onnx"):
        shutil.copy(models / name, tmp_path)
    (tmp_path / "corrupt.onnx").write_bytes(b"corrupt")
    text = "net (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] y) { y = Relu (x) }"
    onnx.save(text_model(text), tmp_path / "fixed.onnx")
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir())
    result = gate("float.onnx", *arguments, "--markdown", "summary.md")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(os.listdir()) == before


# Verdict and reports -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (("pass", "skipped"), "pass"), (("pass", "inconclusive"), "inconclusive"),
        (("inconclusive", "fail", "pass"), "fail"), (("skipped",), "skipped"), ((), "skipped"),
    ],
)  # fmt: skip
def test_worst_row_decides(statuses: tuple[str, ...], status: str) -> None:
    assert overall([Status(each) for each in statuses]) is Status(status)


def report(*found: Row, model: str = "model.onnx") -> GateReport:
    where = Environment("cpu", "x86_64", "Linux", 2, 2, None, "onnxruntime", "3", "2", "1")
    return GateReport(Path(model), None, "cpu", 1, where, found, None, 0, 60)


@settings(max_examples=40)
@given(st.text(min_size=1, max_size=30).filter(lambda text: text not in (".", "..")))
def test_any_file_name_leaves_junit_and_markdown_whole(name: str) -> None:
    row = Row(name, Status.FAIL, "bytes", 2, None, 1, detail=name)
    shown = report(row, row, model=name.replace("/", "_").replace("\0", "_") or "_")
    suite = ET.fromstring(junit(shown).encode("utf-8"))
    assert [case.tag for case in suite] == ["testcase", "testcase"]
    table = [line for line in markdown(shown).splitlines() if line.startswith("|")]
    assert [line.count("|") for line in table] == [7] * 4


def test_inconclusive_and_skipped_rows_are_skipped_in_junit() -> None:
    found = [Row(s.value, s, "ratio", 1.0, 1.0, 1.05, detail="why") for s in Status]
    suite = ET.fromstring(junit(report(*found)))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "1", "2")
    assert [case.get("name") for case in suite if case.find("skipped") is not None] == [
        "inconclusive",
        "skipped",
    ]


def test_output_formats_know_every_unit_of_the_gates(models: Path) -> None:
    text = markdown(report(Row("size", Status.PASS, "bytes", 1234567, 7, 2e6)))
    assert "1,234,567" in text
    assert "&#60;= 2,000,000" in text


# The examples for CI -----------------------------------------------------------------------------------


def commands(text: str, program: str) -> list[list[str]]:
    """The words after `program` of every command in a script, continued lines joined."""
    joined = text.replace("\\\n", " ")
    lines = [
        line.partition(program)[2] for line in joined.splitlines() if program in line and "#" not in line
    ]
    return [line.split() for line in lines]


@pytest.mark.parametrize("path", ["docs/ci/github-actions.yml", "scripts/gate", "docs/gate.md"])
def test_options_in_the_examples_for_ci_exist(path: str) -> None:
    known = {option for each in main.params for option in each.opts if isinstance(each, click.Option)}
    found = commands((ROOT / path).read_text(), "qnas-bench gate ")
    assert found
    for words in found:
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options - known == set()


def test_workflow_is_yaml_with_the_steps_that_it_promises() -> None:
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load((ROOT / "docs/ci/github-actions.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert all("uses" in step or "run" in step for step in job["steps"])
