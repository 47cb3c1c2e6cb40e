"""One fine-tuning: checks first, the run with its state beside OUTPUT, the integer model at the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from qnas.calibration.calibrate import INPUT_RANGES
from qnas.calibration.document import Calibration, read_calibration
from qnas.calibration.prepare.float_model import read_float_model
from qnas.calibration.progress import Display
from qnas.errors import QnasError, UsageError
from qnas.export.formats.onnx_formats import plain_qdq
from qnas.export.formats.table import files_of
from qnas.export.sources.source import Source
from qnas.files import check_outputs, write_file
from qnas.finetuning import train as training
from qnas.finetuning.lessons import Lessons, lessons
from qnas.finetuning.start import at_bits, calibrated
from qnas.finetuning.train import Recipe, Run
from qnas.finetuning.twin import Twin
from qnas.images.files import images_in
from qnas.images.inputs import check_unchanged, digests
from qnas.integer.network import check_accumulators
from qnas.one_writer import one_writer
from qnas.torch.environment import environment, notice, threads_of
from qnas.torch.run_state import check_interrupted
from qnas.torch.threads import torch_threads

SCORED = 4  # batches of other crops, before and after
AGAIN = "begin again with --force"


@dataclass(frozen=True)
class Finetuned:
    """`before`, `after`: PSNR in dB of the integers against the float network, on other crops."""

    output: Path
    before: float
    after: float
    notes: tuple[str, ...] = ()


def finetune(
    model: Path, calibration: Path, recipe: Recipe, output: Path, *, threads: int = 0,
    device: str | None = None, resume: bool = False, force: bool = False, display: Display | None = None,
) -> Finetuned:  # fmt: skip
    """Tune the network of `model` and `calibration` by `recipe` and write `output`, a QDQ model.

    `device`: of torch; None for a GPU where there is one. The state of the run lives in `output`.run while it
    lasts. Raises QnasError; Ctrl-C saves the state and raises KeyboardInterrupt.
    """
    folders = [Path(folder) for folder in recipe.data]
    state, place = output.with_name(output.name + ".run"), _device(device)
    check_outputs([output], force, chain(files_of(model), [calibration], images_in(folders)))
    if output.suffix != ".onnx":
        raise UsageError(f"{output} does not end in .onnx: a QDQ model is written")
    found, shown = read_calibration(calibration), display or Display()
    with one_writer(output, state):
        check_interrupted(state, resume=resume, force=force)
        before = training.read_state(state) if resume else None
        if before and before[0].recipe != recipe:
            raise UsageError(f"{state} is a run with other options: repeat them, or start again with --force")
        then = before[0].environment if before else None
        now = environment(place, threads_of(threads, then, os.cpu_count() or 1, str(state)))
        inputs = digests([model, calibration, *folders])
        check_unchanged(before[0].images if before else {}, inputs, AGAIN)
        with torch_threads(now.threads):
            taught, twin = _prepared(model, found, recipe, now.threads, shown)
            twin.to(place)
            scores = [training.fidelity(twin, taught, recipe.seed + 1, SCORED, place)]
            run = (
                training.resumed(*before, twin, state) if before
                else training.begun(recipe, twin, inputs, now)
            )  # fmt: skip
            _train(run, taught, state, shown.step("fine-tuning"), place)
            scores.append(training.fidelity(twin, taught, recipe.seed + 1, SCORED, place))
        write_file(output, _model(model, twin), force)
        state.unlink(missing_ok=True)
    notes = [notice(then, now)] if then else []
    if scores[1] < scores[0] and recipe.label_weight == 0:
        notes.append(
            "WARNING: it is further from the float network than before: use a smaller --lr, or more --steps"
        )
    return Finetuned(output, scores[0], scores[1], tuple(filter(None, notes)))


def _prepared(
    model: Path, calibration: Calibration, recipe: Recipe, threads: int, display: Display
) -> tuple[Lessons, Twin]:
    """What teaches, and the network as it begins. Raises QnasError."""
    display.step("reading the network")
    given = calibrated(model, calibration)
    teacher = read_float_model(model, INPUT_RANGES.get(calibration.source.white))
    display.step("reading images")
    folders = [Path(folder) for folder in recipe.data]
    taught = lessons(teacher, folders, recipe.batch, recipe.patch, recipe.cache_mib, threads)
    shown, _ = taught.inputs(recipe.seed + 1, 0)
    taught.answers(shown)  # refuses crops of a size that the network does not take
    images = shown.numpy().astype(np.uint8)
    begins = at_bits(given, recipe.bits, [images[i : i + 1] for i in range(len(images))])
    return taught, Twin(begins.network, begins.real, begins.grids)


def _train(
    run: Run, taught: Lessons, state: Path, show: Callable[[int, int], None], device: torch.device
) -> None:
    """Train to the last step, and leave no state of a run that failed before it had any to lose."""
    fresh = run.step == 0
    try:
        training.train(run, taught, state, show, device)
    except QnasError:
        if fresh and run.saved == 0:
            state.unlink(missing_ok=True)
        raise


def _model(model: Path, twin: Twin) -> bytes:
    """The QDQ model of the network that `twin` is now, as `qnas-export` reads it."""
    network = twin.network()
    check_accumulators(network)
    return plain_qdq(Source(model, network))


def _device(name: str | None) -> torch.device:
    """Raises UsageError where torch has no such device here."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"--device {name}: torch has no such device here, use cpu or leave it out"
        ) from error
    return device
