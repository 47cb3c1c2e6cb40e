"""A resumed run is the run that was begun: other images or threads, and a second process, are refused."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from qnas.images.files import read_image, write_png
from qnas.network.architecture import find_architecture
from qnas.network.lowering import lower
from qnas.search.search_cli import main as search_main
from qnas.search.train_cli import main as train_main
from qnas.testing.small_searches import TINY
from qnas.torch.checkpoint import load_found, save_found
from qnas.torch.network import Network
from qnas.torch.run_state import load_run_state

TRAIN = ["espcn-w4", "--patch", "8", "--batch", "2", "--steps", "12"]
STOPPING = """
import signal, sys
from qnas.search.training.data import Crops

batch, after = Crops.batch, int(sys.argv.pop(1))

def stopping(self, seed, step, size, patch):
    if step == after:
        signal.raise_signal(signal.SIGTERM)
    return batch(self, seed, step, size, patch)

Crops.batch = stopping
module = __import__(f"qnas.search.{sys.argv.pop(1)}_cli", fromlist=["main"])
module.main()
"""


def one_line(result: Result) -> str:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture(params=["train", "search"])
def begun(request: pytest.FixtureRequest, photographs: Path, tmp_path: Path) -> Callable[..., Result]:
    """Continue a run that two threads had begun, in another process, which was stopped."""
    write_png(photographs / "3.png", read_image(photographs / "0.png")[::-1])
    if request.param == "train":
        command, line = "train", [*TRAIN, "-o", str(tmp_path / "found.pt")]
        call = train_main
    else:
        command, line = "run", [*TINY[: TINY.index("--threads")], "-o", str(tmp_path / "run")]
        call = search_main
    line += ["--data", str(photographs)]
    program = [sys.executable, "-c", STOPPING, "5", command, *line, "--threads", "2"]
    stopped = subprocess.run(program, check=False, capture_output=True, text=True)
    assert stopped.returncode == 130, stopped.stderr
    subcommand = ["run"] if command == "run" else []
    return lambda *more: CliRunner().invoke(call, [*subcommand, *line, "--resume", *more])


def test_other_images_and_other_threads_than_those_of_the_start_are_named_and_refused(
    begun: Callable[..., Result], photographs: Path
) -> None:
    first, kept = photographs / "1.png", (photographs / "1.png").read_bytes()
    write_png(first, read_image(first) // 2, force=True)
    assert f"1.png of {photographs} has changed since this was begun: put back" in one_line(begun())
    first.unlink()
    assert f"1.png of {photographs} is missing since" in one_line(begun())
    (photographs / "1a.png").write_bytes(kept)
    assert f"1.png of {photographs} is missing since" in one_line(begun())
    first.write_bytes(kept)
    assert f"1a.png of {photographs} is new since" in one_line(begun())
    (photographs / "1a.png").unlink()
    line = one_line(begun("--threads", "1"))
    assert "was begun with --threads 2, and 1 give other bits: leave --threads out, or begin again" in line


def test_a_training_is_recorded_with_the_threads_that_it_was_begun_with(
    photographs: Path, tmp_path: Path
) -> None:
    line = [*TRAIN, "--data", str(photographs), "-o", str(tmp_path / "found.pt")]
    program = [sys.executable, "-c", STOPPING, "5", "train", *line, "--threads", "2"]
    subprocess.run(program, check=False, capture_output=True)
    assert CliRunner().invoke(train_main, [*line, "--resume"]).exit_code == 0
    assert load_found(tmp_path / "found.pt").training["threads"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.pt", "photographs"]


def test_a_second_training_of_one_output_is_refused_at_its_start(photographs: Path, tmp_path: Path) -> None:
    line = [*TRAIN, "--data", str(photographs), "-o", str(tmp_path / "found.pt"), "--steps", "1000000"]
    first = subprocess.Popen([sys.executable, "-m", "qnas.search.train_cli", *line], stderr=subprocess.PIPE)
    try:
        while not (tmp_path / "found.pt.run").exists():
            assert first.poll() is None
            time.sleep(0.05)
        for more in ([], ["--force"], ["--resume"]):
            second = CliRunner().invoke(train_main, [*line, *more])
            assert "another process writes" in one_line(second)
    finally:
        first.kill()
        first.communicate(timeout=60)
    state = load_run_state(tmp_path / "found.pt.run", "qnas-run", 1, "qnas-train")
    assert state["step"] == 0  # a run can go on from its very start
    assert list(state["images"][str(photographs)]) == ["0.png", "1.png", "2.png"]


def test_a_training_that_fails_before_its_first_minute_leaves_nothing(
    photographs: Path, tmp_path: Path
) -> None:
    line = [*TRAIN, "--data", str(photographs), "-o", str(tmp_path / "found.pt"), "--threads", "1"]
    assert "the loss became" in one_line(CliRunner().invoke(train_main, [*line, "--lr", "1e30"]))
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]


@pytest.mark.parametrize("bits", ["4", "32"])
@pytest.mark.parametrize("size", [1e10, 1e20, 1e38])
def test_weights_too_large_to_start_from_are_named(
    photographs: Path, tmp_path: Path, bits: str, size: float
) -> None:
    network = Network(lower(find_architecture("espcn-w32")))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_().clamp_(-3, 3).mul_(size)
    save_found(tmp_path / "huge.pt", find_architecture("espcn-w32"), network, {})
    line = [*TRAIN, "--data", str(photographs), "-o", str(tmp_path / "found.pt"), "--threads", "1"]
    more = ["--bits", bits, "--warm-start", str(tmp_path / "huge.pt")]
    said = one_line(CliRunner().invoke(train_main, [*line, *more]))
    assert "huge.pt are too large, use another" in said
