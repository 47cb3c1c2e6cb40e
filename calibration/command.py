"""What `qnas-calibrate` does: checks first, bars while it runs, then the files and a table of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from qnas.calibration.calibrate import Before, Run, Settings, run
from qnas.calibration.document import write_calibration
from qnas.calibration.progress import bars
from qnas.calibration.report.charts import decibels
from qnas.calibration.report.page import calibration_page
from qnas.cli import say
from qnas.errors import ModelError
from qnas.files import check_outputs, write_file
from qnas.images.files import images_in
from qnas.one_writer import one_writer
from qnas.terminal import stdout


def calibrate_command(
    model: Path, images: Sequence[Path], output: Path | None, before: Before, *, html: bool, force: bool,
    **settings: Any,
) -> None:  # fmt: skip
    """Calibrate `model`, and write `output` and its page. Raises QnasError, nothing written.

    `before` is shown the network before any image is read, and may say or refuse something.
    """
    if model.is_dir():
        raise ModelError(f"{model} is a folder: name the file of a network, and then the images")
    target = output or model.with_suffix(".calibration.json")
    page = target.with_suffix(".html")
    check_outputs([target, page if html else None], force, (model, *images_in(images), settings["crops_of"]))
    with one_writer(target, *([page] if html else [])):
        with bars() as display:
            done = run(model, images, Settings(**settings), display, before)
            text = calibration_page(done, display) if html else ""
        write_calibration(done.calibration, target, force)
        if html:
            write_file(page, text, force)
    _show(done, [target, *([page] if html else [])])


def _show(done: Run, files: Sequence[Path]) -> None:
    """The scores, the notices, and what was written."""
    calibration = done.calibration
    table = Table("candidate", box=SIMPLE_HEAD, title="INT8 against the float model, on images held out")
    table.add_column("PSNR", justify="right")
    table.add_column("")
    for score in calibration.scores:
        note = (
            "chosen"
            if score.name == calibration.chosen
            else ""
            if score.eligible
            else "control, never chosen"
        )
        table.add_row(score.name, decibels(score.psnr), note)
    stdout(100).print(table)
    for notice in done.notices:
        say(notice)
    for path in files:
        say(f"wrote {path} ({path.stat().st_size} bytes)")
