"""Whatever --force says, no command replaces what it reads, or what is no plain file."""

import os
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from qnas.images.files import write_png
from qnas.testing.text_models import FLOAT_CONV, INTEGER_CONV, text_model

# (module of the command, its arguments, a file that it reads): {} is the output that is tried.
CASES = [
    ("runtime_bench.measure_cli", "model.onnx --runs 1 --json {}", "model.onnx"),
    ("runtime_bench.gate_cli", "model.onnx --against old.onnx --max-size 1M --json {}", "model.onnx"),
    ("runtime_bench.gate_cli", "model.onnx --against old.onnx --max-size 1M --markdown {}", "old.onnx"),
    ("runtime_bench.gate_cli", "model.onnx --min-psnr 1 --images images --junit {}", "images/0.png"),
    ("runtime_bench.gate_cli", "model.onnx --baseline table.json --json {}", "table.json"),
    ("runtime_bench.cost_cli", "model.onnx old.onnx --json {}", "old.onnx"),
    ("runtime_bench.fit_cli", "--models . -o {}", "weights"),
    ("runtime_bench.operations_cli", "--model table.json -o {}", "table.json"),
    ("runtime_bench.operations_cli", "--model table.json --space space.json -o {}", "space.json"),
    ("runtime_bench.predict_cli", "model.onnx --model table.json --json {}", "weights"),
    ("runtime_bench.correlate_cli", ". -o {}", "weights"),
    ("runtime_bench.correlate_cli", ". -o new.html --model table.json --json {}", "table.json"),
    ("runtime_bench.report_cli", "table.json -o {}", "table.json"),
    ("runtime_bench.upscale_cli", "model.onnx images/0.png -o {}", "images/0.png"),
    ("export.cli", "model.onnx -o {}", "model.onnx"),
    ("export.cli", "float.onnx --calibration old.onnx -o {}", "old.onnx"),
    ("export.inspect_cli", "model.onnx --html {}", "model.onnx"),
    ("export.inspect_cli", "model.onnx --images images --html {}", "images/0.png"),
    ("finetuning.cli", "float.onnx --calibration old.onnx --data images -o {}", "old.onnx"),
    ("finetuning.cli", "model.onnx --calibration old.onnx --data images -o {}", "images/0.png"),
    ("calibration.cli", "model.onnx images -o {}", "images/0.png"),
    ("calibration.cli", "model.onnx images --crops-of table.json -o {}", "table.json"),
    ("calibration.cli", "model.onnx --dry-run --json {}", "weights"),
    ("search.import_cli", "found.pt --genotype table.json -o {}", "found.pt"),
    ("search.import_cli", "found.pt --genotype table.json -o new.pt --deployable {}", "table.json"),
    ("search.train_cli", "espcn-w8 --data images -o {}", "images/0.png"),
    ("search.train_cli", "espcn-w8 --data images --warm-start found.pt -o {}", "found.pt"),
    ("search.report_cli", ". -o {}", "found.pt"),
    ("search.spaces_cli", "space.json --json {}", "space.json"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the commands read, as far as it matters before they write."""
    (tmp_path / "images").mkdir()
    write_png(tmp_path / "images" / "0.png", np.zeros((64, 64, 3), np.uint8))
    model = text_model(INTEGER_CONV)
    (tmp_path / "old.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "float.onnx").write_bytes(text_model(FLOAT_CONV).SerializeToString())
    onnx.save_model(
        model, tmp_path / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0
    )
    for name in ("table.json", "space.json", "found.pt"):
        (tmp_path / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(command: str, line: str, out: Path) -> Result:
    """What the command says with --force; it must leave every file as it was."""
    before = contents()
    main = import_module(f"qnas.{command}").main
    result = CliRunner().invoke(main, [*line.format(out).split(), "--force"])
    assert result.exit_code == 2, result.output
    assert contents() == before
    return result


def contents() -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


@pytest.mark.parametrize(("command", "line", "read"), CASES)
def test_an_output_that_is_no_plain_file_is_refused(folder: Path, command: str, line: str, read: str) -> None:
    link, pipe = (Path(f"{name}{Path(read).suffix}") for name in ("a-link", "a-pipe"))
    link.symlink_to("nowhere")
    os.mkfifo(pipe)
    for out, kind in ((link, "link"), (pipe, "pipe")):
        said = refusal(command, line, out).stderr
        assert said == f"error: {out} is a {kind}, which is never replaced: name a file\n"


@pytest.mark.parametrize(("command", "line", "read"), CASES)
def test_an_output_that_is_read_is_refused(folder: Path, command: str, line: str, read: str) -> None:
    (folder / "here").symlink_to(folder)
    os.link(read, f"second{Path(read).suffix}")
    for out in (Path(read), Path("here", read), Path(f"second{Path(read).suffix}")):
        said = refusal(command, line, out).stderr
        assert said == f"error: {out} would replace what is read: name another file\n"
