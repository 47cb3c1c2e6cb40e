"""A real program in place of ssh that lies, floods, dribbles or hangs: the command ends, with one line."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qnas.runtime_bench.measure_cli import main
from qnas.testing.hostile_replies import Case, cases, converse, make_peer
from qnas.testing.phone import ADB, program


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("peer")
    return folder, make_peer(folder)


@pytest.fixture
def peer(honest: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Path:
    folder, _ = honest
    monkeypatch.setenv("QNAS_SSH", str(folder / "ssh"))
    return folder


LIES = [
    Case("another protocol", "hello", "say", '{"protocol": 1' + "0" * 300 + "}"),
    Case("no JSON", "hello", "say", "Welcome to this board!"),
    Case("no UTF-8", "hello", "say", '{"protocol": "\udcff\udcfe"}'),
    Case("half of a surrogate pair", "kept", "say", '{"path": "\\ud800"}'),
    Case("nested without end", "has", "say", '{"there": ' * 3000),
    Case("an error that colours", "has", "say", '{"error": "\\u001b[31mred\\u202e\\u009b"}'),
    Case("a long error", "has", "say", '{"error": "' + "x" * 100_000 + '"}'),
    Case("a path of megabytes", "kept", "say", '{"path": "' + "x" * 100_000 + '"}'),
    Case("no inputs", "load", "say", '{"input_shapes": {}}'),
    Case("not a number", "run", "say", '{"ns": [NaN, 1]}'),
    Case("infinite", "run", "say", '{"ns": [Infinity]}'),
    Case("negative", "run", "say", '{"ns": [-1]}'),
    Case("zero", "run", "say", '{"ns": [0]}'),
    Case("huge", "run", "say", '{"ns": [1' + "0" * 300 + "]}"),
    Case("a fraction", "run", "say", '{"ns": [1.5]}'),
    Case("no times", "run", "say", '{"ns": []}'),
    Case("too many times", "run", "say", '{"ns": ["TIMES", 100000, 100000]}'),
    Case("more time than went by", "run", "say", '{"ns": [9000000000000]}'),
    Case("two answers", "run", "say", '{"ns": ["TIMES"]}\n{"ns": ["TIMES"]}'),
    Case("no frequencies", "state", "say", "{}"),
    Case("reads no more at once", "stop reading", "0"),
    Case("reads no more before the model", "stop reading", "2"),
    *(Case(how, "run", how) for how in ("nothing", "end", "close", "dribble", "flood", "flood errors")),
]


@pytest.mark.parametrize("case", LIES, ids=lambda case: case.name.replace(" ", "-"))
def test_lie_of_a_machine_is_refused_in_one_line(peer: Path, case: Case) -> None:
    result, wrong = converse(peer, case)
    assert wrong == ""
    assert result.exit_code == 2, result.output
    assert len(result.stderr) < 1200


def test_honest_machine_is_believed(peer: Path) -> None:
    result, wrong = converse(peer, Case("honest", ""))
    assert (result.exit_code, wrong) == (0, ""), result.output


def test_machine_that_loads_another_model_is_refused(peer: Path, honest: tuple[Path, dict[str, Any]]) -> None:
    other = next(
        each for each in cases(honest[1]) if each.name.startswith("load: input_shapes.image.2 = '0'")
    )
    result, _ = converse(peer, other)
    assert "another model was loaded, with inputs of [(1, 3, 0, 8)]: is it the same qnas?" in result.stderr


ENDLESS = [
    ("get-state", "sleep 600 & echo device"),  # a child holds the output
    ("shell", "sleep 600"),
    ("push", "yes >&2"),
    ("exec-out", "yes"),
]


@pytest.mark.parametrize(("when", "body"), ENDLESS)
def test_phone_without_end_is_refused_in_one_line(
    tmp_path: Path, peer: Path, monkeypatch: pytest.MonkeyPatch, when: str, body: str
) -> None:
    (tmp_path / "phone").mkdir()
    monkeypatch.setenv("PHONE", str(tmp_path / "phone"))
    hostile = ADB.replace("case $3 in\n", f"case $3 in\n{when}) {body} ;;\n", 1)
    monkeypatch.setenv("QNAS_ADB", str(program(tmp_path / "adb", hostile)))
    binary = program(tmp_path / "perf_test", "#!/bin/sh\necho 'model,1,1,1,1,1' > result.csv\n")
    words = [str(peer / "model.onnx"), "--device", "adb:phone1/cpu", "--adb-binary", str(binary)]
    result = CliRunner().invoke(main, [*words, "--shape", "8x8", "--runs", "1", "--timeout", "1"])
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert ("did not answer within 1 s" in result.stderr) or "without end" in result.stderr


PROGRAMS = {
    "not a number": "model,nan,1,1,1,0",
    "negative": "model,-1,1,1,1,0", "huge": f"model,1{'0' * 300},1,1,1,0",
    "zero": "model,0,1,1,1,0", "no times": "", "other bytes": "\\377\\376,\\377,1,1,1,0",  # no UTF-8
    "more than went by": "model,1000,1,1,1,0",
}  # fmt: skip


@pytest.mark.parametrize("row", PROGRAMS.values(), ids=PROGRAMS)
def test_program_on_a_phone_that_lies_is_refused(
    tmp_path: Path, peer: Path, monkeypatch: pytest.MonkeyPatch, row: str
) -> None:
    (tmp_path / "phone").mkdir()
    monkeypatch.setenv("PHONE", str(tmp_path / "phone"))
    monkeypatch.setenv("QNAS_ADB", str(program(tmp_path / "adb", ADB)))
    binary = program(tmp_path / "perf_test", f"#!/bin/sh\nprintf '{row}\\n' > result.csv\n")
    words = [str(peer / "model.onnx"), "--device", "adb:phone1/cpu", "--adb-binary", str(binary)]
    result = CliRunner().invoke(main, [*words, "--shape", "8x8", "--runs", "1"])
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
