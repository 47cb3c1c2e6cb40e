"""Names out of a file are only text, on the terminal and in every file that is written for people."""

from importlib import import_module
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from qnas.terminal import Terminal
from qnas.testing.hostile_names import HOSTILE, hostile
from qnas.testing.small_calibrations import make_network, make_photographs
from qnas.testing.text_models import INTEGER_CONV, text_model

# In this order: the later ones read what the earlier ones wrote.
LINES = (
    "runtime_bench.cost_cli q.onnx --json cost.json",
    "runtime_bench.measure_cli q.onnx --shape 16x16 --runs 1 --warmup 0 --profile --json m.json",
    "runtime_bench.gate_cli q.onnx --max-size 1M --shape 16x16 --json g.json --junit g.xml --markdown g.md",
    "runtime_bench.gate_cli [b]\u202e.onnx --max-size 1M --shape 16x16 --junit g2.xml --markdown g2.md",
    "runtime_bench.report_cli m.json g.json -o report.html",
    "runtime_bench.upscale_cli q.onnx im/chelsea.png -o large.png",
    "export.inspect_cli q.onnx --html q.html",
    "export.inspect_cli q.onnx --json",
    "calibration.cli f.onnx im --html --count 8 --threads 1",
    "export.cli f.onnx --calibration f.calibration.json --check im --check-layers --html",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    network = make_network(folder)
    onnx.save(hostile(onnx.load(network)), folder / "f.onnx")
    for name in ("q.onnx", "[b]\u202e.onnx"):
        onnx.save(hostile(text_model(INTEGER_CONV)), folder / name)
    make_photographs(folder / "im")
    return folder


@pytest.mark.parametrize("line", LINES)
def test_no_command_hands_on_what_a_terminal_obeys(
    folder: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(folder)
    before = set(folder.iterdir())
    command, *words = line.split()
    result = CliRunner().invoke(import_module(f"qnas.{command}").main, words)
    assert result.exit_code == 0, result.output
    written = {
        path for path in folder.iterdir() if path not in before and path.suffix not in (".onnx", ".png")
    }
    texts = [result.output, *(path.read_text("utf-8") for path in written)]
    assert [{c for c in text if not c.isprintable()} - {"\n"} for text in texts] == [set()] * len(texts)
    if "inspect" in command or "--profile" in line or "cost" in command:
        assert "[red]" in result.stdout  # no markup
        assert ":smile:" in result.stdout


def test_a_console_takes_every_text_as_text() -> None:
    console = Terminal(width=200, force_terminal=True)
    with console.capture() as capture:
        console.print(HOSTILE)
    assert capture.get() == "?]0;owned??[31m[red]?evil??:smile:|<b>\n\n"
