"""A sweep works alone in its folder, its members end with it, and it goes on only with what it began with."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qnas.images.files import read_image, write_png
from qnas.search.sweep_cli import main

pytest.importorskip("torch")  # which only the sweep's own processes ask for
NAME = "uniform-lsq-espcn-b4-s0"


def refusal(*options: str) -> str:
    result: Result = CliRunner().invoke(main, options)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


def children(process: int) -> list[int]:
    """The processes that it started."""
    found = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def ended(process: int) -> bool:
    """Whether there is none of that number, or only its remains."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_members_end_with_their_killed_sweep_and_it_goes_on_only_with_what_it_began_with(
    photographs: Path, tmp_path: Path
) -> None:
    sweep, state = tmp_path / "sweep", tmp_path / "sweep" / "members" / NAME / "found.pt.run"
    options = [
        "-o", str(sweep), "--method", "uniform-lsq", "--bits", "4", "--data", str(photographs), "--validate",
        str(photographs), "--train-steps", "1000000", "--train", "patch=8", "--train", "batch=2",
    ]  # fmt: skip
    program = "from qnas.search.sweep_cli import main; main()"
    command = [sys.executable, "-c", program, *options, "--threads", "1"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not state.exists():
        assert first.poll() is None
        time.sleep(0.05)
    members = children(first.pid)
    assert "another process writes" in refusal(*options, "--resume")
    first.kill()
    first.communicate(timeout=120)
    assert members
    for _ in range(600):  # a minute, of which it takes none
        if all(map(ended, members)):
            break
        time.sleep(0.1)
    assert all(map(ended, members))

    assert json.loads((sweep / "sweep.json").read_text())["threads"] == 1
    assert "was begun with --threads 1, and 2 give other bits" in refusal(
        "-o", str(sweep), "--resume", "--threads", "2"
    )
    image = photographs / "0.png"
    write_png(image, read_image(image) // 2, force=True)
    assert f"0.png of {photographs} has changed since this was begun" in refusal("-o", str(sweep), "--resume")
