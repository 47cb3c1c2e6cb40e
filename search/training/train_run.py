"""One training at a terminal: checks first, live progress, found.pt at the end."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from qnas import __version__
from qnas.cost.network_cost import PAPER_G, network_cost
from qnas.errors import ArchitectureError, QnasError, UsageError
from qnas.files import check_outputs
from qnas.images.files import images_in, list_images
from qnas.network.architecture import Architecture, find_architecture
from qnas.network.lowering import lower
from qnas.one_writer import one_writer
from qnas.quantization.quantizers import BIT_WIDTHS, Levels
from qnas.search.training import train as training
from qnas.search.training.data import check_patch
from qnas.search.training.train import Progress, Recipe, Run
from qnas.terminal import Terminal, stderr
from qnas.torch.checkpoint import save_found
from qnas.torch.environment import Environment, environment, notice, threads_of
from qnas.torch.inference import validate
from qnas.torch.run_state import check_interrupted
from qnas.torch.threads import torch_threads


def architecture(name: str, bits: int | None, levels: Levels | None = None) -> Architecture:
    """The architecture by name or file, at `bits` and with `levels` when given. Raises ArchitectureError."""
    found = find_architecture(name)
    if bits is not None:
        if bits not in BIT_WIDTHS:
            widths = ", ".join(map(str, BIT_WIDTHS))
            raise ArchitectureError(f"--bits {bits} is no bit width: use one of {widths}")
        found = found.with_bits(bits)
    if levels is not None:
        found = replace(found, levels=levels)
    layers = lower(found)
    if levels == "lloyd" and not any(layer.quant and layer.quant.levels == "lloyd" for layer in layers):
        raise ArchitectureError(f"--levels lloyd changes nothing in {name}: it needs --bits below 8")
    return found


def cost_line(found: Architecture) -> str:
    """What the network costs for an image of 32x32."""
    cost = network_cost(lower(found), 32, 32)
    return (
        f"at 32x32: {cost.macs / 1e6:.2f} MMACs, {cost.bitops / PAPER_G:.3f} GBitOps (G = 2^30), "
        f"{cost.parameters} parameters, {cost.weight_bytes} bytes of weights"
    )


def recipe(
    found: Architecture, data: Sequence[Path], *, warm_start: Path | None, patch: int, **options: Any
) -> Recipe:
    """A Recipe with its folders and the size of its crops checked. Raises UsageError, ImageError."""
    if not data:
        raise UsageError("no training images: pass --data FOLDER (repeatable)")
    for folder in data:
        list_images(folder)
    check_patch(found, patch)
    if options.get("activation_steps") == "hwgq" and not training.has_hwgq_steps(lower(found)):
        raise UsageError("--activation-steps hwgq is for quantized activations: use --bits below 32")
    start = str(warm_start) if warm_start else None
    return Recipe(tuple(map(str, data)), warm_start=start, patch=patch, **options)


def run(
    found: Architecture, wanted: Recipe, output: Path, validation: Path | None, threads: int, *,
    resume: bool, force: bool, show: Callable[[Progress], None] | None = None, source: Path | None = None,
) -> None:  # fmt: skip
    """Train and write `output`. Raises QnasError; Ctrl-C saves the state.

    `source` is the file that `found` came from. Progress is shown on stderr, or with `show`, which hears of
    every step, not at all.
    """
    warm_start = Path(wanted.warm_start) if wanted.warm_start else None
    pictures = images_in([*map(Path, wanted.data), validation])
    check_outputs([output], force, chain([source, warm_start], pictures))
    if validation:
        list_images(validation)
    state = output.with_name(output.name + ".run")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    console = stderr(quiet=show is not None)
    with one_writer(output, state):
        check_interrupted(state, resume=resume, force=force)
        current = _resumed(state, found, wanted, device) if resume else None
        began = current.environment if current else None
        now = environment(device, threads_of(threads, began, os.cpu_count() or 1, str(state)))
        if began and (text := notice(began, now)):
            console.print(text, soft_wrap=True)
        quiet = np.errstate(over="ignore", invalid="ignore")  # such numbers end a run with an error of ours
        with torch_threads(now.threads), quiet:
            current = current or training.start(found, wanted, device)
            current.environment = began or now
            _train(current, state, validation, console, show)
            record = _record(current, now, validation, console)
        save_found(output, found, current.network, record, force)
        state.unlink(missing_ok=True)
    console.print(f"wrote {output}")


def _resumed(state: Path, found: Architecture, wanted: Recipe, device: torch.device) -> Run:
    """The run in `state`. Raises UsageError where it is another one, CheckpointError."""
    current = training.resume(state, device)
    if (current.recipe, current.architecture) != (wanted, found):
        raise UsageError(f"{state} is a run with other options: repeat them, or start again with --force")
    return current


def _train(
    current: Run, state: Path, validation: Path | None, console: Terminal,
    show: Callable[[Progress], None] | None,
) -> None:  # fmt: skip
    """Train to the last step, and leave no state of a run that failed before it had any to lose."""
    try:
        with _display(console, current.recipe.steps) as shown:
            training.train(current, state, validation, show or shown)
    except KeyboardInterrupt:
        console.print(
            f"stopped at step {current.step}" + ("; continue with --resume" if state.exists() else "")
        )
        raise
    except QnasError:
        if current.saved == 0:
            state.unlink(missing_ok=True)
        raise


def _record(current: Run, now: Environment, validation: Path | None, console: Terminal) -> dict[str, Any]:
    """What found.pt tells of its training, with the quality on the images of `validation`."""
    recipe, record = current.recipe, {}
    if validation:
        quality = validate(current.network, validation, current.architecture.scale)
        record["validation"] = {"folder": validation.name, "psnr_y": quality.psnr, "ssim": quality.ssim}
        console.print(f"{validation.name}: PSNR-Y {quality.psnr:.3f} dB, SSIM {quality.ssim:.4f}")
    return {
        "recipe": {**vars(recipe), "data": [Path(folder).name for folder in recipe.data]},
        "seconds": round(current.seconds, 1),
        "device": "cpu" if now.device == "cpu" else "cuda",
        "threads": now.threads,
        "versions": {"qnas": __version__, "torch": str(torch.__version__)},
        **record,
    }


@contextmanager
def _display(console: Terminal, steps: int) -> Iterator[Callable[[Progress], None]]:
    """A live bar on a terminal, else a line every 30 seconds."""
    text = "loss {task.fields[loss]:.3f}  PSNR-Y {task.fields[psnr]}  {task.fields[speed]:.0f} images/s"
    columns = (MofNCompleteColumn(), BarColumn(), TextColumn(text), TimeRemainingColumn())
    if console.is_terminal:
        with Bar(*columns, console=console) as bar:
            task = bar.add_task("train", total=steps, loss=0.0, psnr="-", speed=0.0)
            yield lambda p: bar.update(
                task, completed=p.step, loss=p.loss, psnr=_db(p.psnr), speed=p.images_per_second
            )
        return
    last, mean = [time.monotonic()], [0.0]

    def line(p: Progress) -> None:
        mean[0] += (p.loss - mean[0]) * (0.01 if mean[0] else 1.0)
        if time.monotonic() - last[0] > 30 or p.step == p.steps:
            last[0] = time.monotonic()
            console.print(
                f"step {p.step}/{p.steps}  loss {mean[0]:.3f}  PSNR-Y {_db(p.psnr)}  "
                f"{p.images_per_second:.0f} images/s  {p.seconds_left / 60:.1f} min left"
            )

    yield line


def _db(psnr: float | None) -> str:
    return "-" if psnr is None else f"{psnr:.2f} dB"
