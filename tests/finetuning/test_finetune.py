"""qnas-finetune as a user has it: what it writes, and how a run ends and goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from qnas.calibration.calibrate import Settings, calibrate
from qnas.calibration.document import write_calibration
from qnas.errors import UsageError
from qnas.export.from_qdq.reader import read_qdq
from qnas.export.options import Options
from qnas.export.run import export
from qnas.finetuning import finetune_run, train
from qnas.finetuning.cli import main
from qnas.finetuning.start import Bits
from qnas.finetuning.train import Recipe
from qnas.images.files import write_png
from qnas.images.samples import sample_photographs
from qnas.integer.interpreter import run
from qnas.testing.random_networks import noise
from qnas.testing.small_calibrations import make_network, make_photographs
from qnas.testing.sr_modules import every_operation
from qnas.testing.sr_modules import export as export_module

SMALL = ("--patch", "12", "--batch", "2", "--steps", "6", "--threads", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(network, its calibration, a folder of photographs)."""
    folder = tmp_path_factory.mktemp("inputs")
    network, photographs = make_network(folder, clip=True), make_photographs(folder / "photographs")
    found = calibrate(network, [photographs], Settings(patch=24, count=8, threads=1))
    write_calibration(found, folder / "calibration.json")
    return network, folder / "calibration.json", photographs


def arguments(inputs: tuple[Path, Path, Path], output: Path, *more: str) -> list[str]:
    network, calibration, data = map(str, inputs)
    return [network, "--calibration", calibration, "--data", data, "-o", str(output), *SMALL, *more]


def finetuned(inputs: tuple[Path, Path, Path], output: Path, *more: str) -> str:
    """Standard output and error; the command has to succeed."""
    result = CliRunner().invoke(main, arguments(inputs, output, *more), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(inputs: tuple[Path, Path, Path], output: Path, *more: str) -> str:
    result = CliRunner().invoke(main, arguments(inputs, output, *more), catch_exceptions=False)
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
    return result.output


def test_what_it_wrote_is_exported_to_both_formats_with_equal_integers(
    inputs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    output = tmp_path / "tuned.onnx"
    said = finetuned(inputs, output, "--weight-bits", "4", "--activation-bits", "4", "--all-layers")
    assert "dB before" in said
    assert not output.with_name("tuned.onnx.run").exists()
    network = read_qdq(output)
    assert {node.bits for node, _ in network.convolutions()} == {4}
    done = export(output, Options(("onnx-qdq", "tflite"), check=inputs[2]))
    assert done.report is not None
    assert done.report.passed
    exact = [row for file in done.report.files for row in file.runtimes if "not gated" not in str(row)]
    assert exact
    image = noise(9, 14).transpose(2, 0, 1)[None]
    np.testing.assert_array_equal(run(read_qdq(done.files[0]), image), run(network, image))


def test_tuning_brings_4_bits_nearer_to_the_float_network(
    inputs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    network, calibration, data = inputs
    recipe = Recipe((str(data),), Bits(4, None, True), steps=60, batch=4, patch=16, learning_rate=2e-3)
    done = finetune_run.finetune(network, calibration, recipe, tmp_path / "t.onnx", threads=1, device="cpu")
    assert done.after > done.before + 0.5


def test_a_run_that_is_killed_goes_on_with_the_same_bits(
    inputs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole.onnx", tmp_path / "killed.onnx"
    more = ("--weight-bits", "4", "--steps", "40")
    finetuned(inputs, whole, *more)
    program = (
        "import sys; from qnas.finetuning import train; train.CHECKPOINT_SECONDS = 0.0\n"
        "from qnas.finetuning.cli import main; main(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments(inputs, killed, *more)], stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    state = killed.with_name("killed.onnx.run")
    while process.poll() is None and (not state.exists() or train.load_run_state(
        state, train.FORMAT, train.VERSION, "qnas-finetune")["step"] < 3
    ):  # fmt: skip
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists()
    assert not killed.exists()
    assert "is an interrupted run" in refused(inputs, killed, *more)
    finetuned(inputs, killed, *more, "--resume")
    assert killed.read_bytes() == whole.read_bytes()
    assert not state.exists()


def test_a_stop_request_saves_the_state_at_the_end_of_a_step(
    inputs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, stop = tmp_path / "stopped.onnx", train.one_step

    def stopping(*args: object) -> None:
        stop(*args)
        if args[0].step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train, "one_step", stopping)
    result = CliRunner().invoke(main, arguments(inputs, output))
    assert result.exit_code != 0
    state, document = train.read_state(output.with_name("stopped.onnx.run"))
    assert (state.recipe.steps, document["step"]) == (6, 2)
    monkeypatch.undo()
    finetuned(inputs, output, "--resume")
    finetuned(inputs, tmp_path / "whole.onnx")
    assert output.read_bytes() == (tmp_path / "whole.onnx").read_bytes()


def test_a_run_whose_photographs_or_options_changed_is_not_resumed(
    inputs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs = make_photographs(tmp_path / "photographs")
    given, output = (*inputs[:2], photographs), tmp_path / "tuned.onnx"
    monkeypatch.setattr(train, "one_step", lambda *args: os.kill(os.getpid(), signal.SIGTERM))
    CliRunner().invoke(main, arguments(given, output))
    monkeypatch.undo()
    assert "other options" in refused(given, output, "--resume", "--lr", "0.1")
    name, picture = sample_photographs()[0]
    write_png(photographs / f"{name}.png", picture[:48, :60], force=True)
    assert f"{name}.png" in refused(given, output, "--resume")


def test_crops_that_the_network_does_not_take_are_refused_before_the_run(
    inputs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    network = export_module(every_operation(), tmp_path / "every.onnx")
    found = calibrate(network, [inputs[2]], Settings(patch=24, count=8, threads=1, input_range="0..1"))
    write_calibration(found, tmp_path / "every.json")
    given = (network, tmp_path / "every.json", inputs[2])
    assert "use images of a size that it takes" in refused(given, tmp_path / "t.onnx", "--patch", "11")
    finetuned(given, tmp_path / "t.onnx", "--weight-bits", "4", "--activation-bits", "4", "--labels", "0.5")


def test_a_run_that_makes_it_worse_says_so(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    assert "WARNING: it is further" in finetuned(inputs, tmp_path / "t.onnx", "--lr", "1")


def test_what_cannot_be_tuned_is_refused_in_one_line(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    network, calibration, photographs = inputs
    output = tmp_path / "tuned.onnx"
    with pytest.raises(UsageError, match="label_weight"):
        train.wanted_recipe([photographs], 4, None, False, label_weight=2.0)
    with pytest.raises(UsageError, match="weights"):
        train.wanted_recipe([photographs], 5, None, False)
    assert "does not end in .onnx" in refused(inputs, tmp_path / "tuned.json")
    assert "no interrupted run" in refused(inputs, output, "--resume")
    assert "no such device" in refused(inputs, output, "--device", "nonsense")
    assert "smaller --patch" in refused(inputs, output, "--patch", "400")
    found = calibrate(
        network, [photographs], Settings(patch=24, count=8, threads=1, float_layers=("*second*",))
    )
    write_calibration(found, tmp_path / "mixed.json")
    assert "all of a network in integers" in refused((network, tmp_path / "mixed.json", photographs), output)
    model = onnx.load(network)
    model.graph.node[0].name = "another"
    onnx.save(model, tmp_path / "other.onnx")
    assert "SHA-256" in refused((tmp_path / "other.onnx", calibration, photographs), output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixed.json", "other.onnx"]
