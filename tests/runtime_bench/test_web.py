"""onnxruntime-web in Node computes what the interpreter computes, and says what it ran or why it cannot."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from qnas.errors import UsageError
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.integer.interpreter import run
from qnas.runtime_bench.cli import main
from qnas.runtimes.table import CHECKS, DEVICES
from qnas.runtimes.web import MODULES, WebModel
from qnas.testing.small_networks import pixels, tied_network

WEB = DEVICES["web"]
needs_web = pytest.mark.skipif(WEB.missing("") is not None, reason=f"no onnxruntime-web: {WEB.missing('')}")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(write_onnx(fitted(tied_network(), TARGETS["onnxruntime"]), TARGETS["onnxruntime"]), path)
    return path


@needs_web
def test_webassembly_computes_the_integers(model: Path) -> None:
    x = pixels(13, 9)
    wanted = run(tied_network(), x)
    opened = WebModel("", model, 1, {})
    opened.feed({"image": x})
    opened.run()
    np.testing.assert_array_equal(opened.outputs()["upscaled"], wanted)
    found = CHECKS["onnxruntime-web"].open(model.read_bytes()).upscale(x[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(found, wanted[0].transpose(1, 2, 0))


@needs_web
def test_what_ran_is_known_with_its_multiplications(model: Path) -> None:
    nodes = WEB.executed("", model, {"image": pixels(8, 8)}, 1, {}, 3)
    convolutions = [node for node in nodes if node.op == "QLinearConv"]
    assert sorted(node.macs for node in convolutions) == [
        8 * 8 * 12 * 12,
        8 * 8 * 12 * 9 * 4,
    ]  # 3 padded to 4
    assert all(node.integer and len(node.nanoseconds) == 3 for node in convolutions)


@needs_web
def test_the_bench_takes_the_device_and_says_its_version(model: Path) -> None:
    arguments = [str(model), "--device", "web", "--shape", "16x12", "--min-time", "0.1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "onnxruntime-web 1." in result.output
    assert "100.0% of MACs" in result.output


@needs_web
def test_a_shape_that_does_not_fit_is_one_line(model: Path) -> None:
    opened = WebModel("", model, 1, {})
    opened.feed({"image": np.zeros((1, 5, 8, 8), np.uint8)})
    with pytest.raises(Exception, match="cannot run on image of 1x5x8x8"):
        opened.run()


def old_node(folder: Path, version: str) -> None:
    """A program `node` that answers as one of that version does."""
    program = folder / "node"
    program.write_text(f'#!/bin/sh\nread line\necho \'{{"node": "{version}", "web": "1.30.0"}}\'\n')
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "there is no program 'node': install Node 18 or newer"),
        (lambda folder: old_node(folder, "16.20.2"), "Node 16.20.2 is too old for onnxruntime-web"),
    ],
)
def test_a_missing_or_old_node_is_one_line(
    make: object, said: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    make(tools)  # type: ignore[operator]
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv(MODULES, str(tmp_path))  # asked once for each
    missing = WEB.missing("")
    assert missing is not None
    assert said in missing


def test_a_folder_without_the_package_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not any((Path(place) / "node").exists() for place in os.environ["PATH"].split(":")):
        pytest.skip("no Node")
    monkeypatch.setenv(MODULES, str(tmp_path / "nothing"))
    assert "npm install -g onnxruntime-web" in (WEB.missing("") or "")


def test_it_takes_no_options(model: Path) -> None:
    with pytest.raises(UsageError, match="no option 'turbo'"):
        WebModel("", model, 1, {"turbo": "1"})
