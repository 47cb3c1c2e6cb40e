"""The Python API: what the commands do, as functions with typed results that print nothing.

`import qnas` brings these names and loads them when they are used first. Long ones take `progress`, a
function of (what is being done, the share of it that is done, from 0 to 1). All raise `qnas.errors.QnasError`
with what was wrong, where, and what to do. docs/api.md shows each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qnas.calibration.calibrate import Settings as _CalibrationSettings
from qnas.calibration.calibrate import calibrate as _calibrate
from qnas.calibration.document import Calibration, write_calibration
from qnas.calibration.progress import Display, Show
from qnas.cost.allocation import BitsReport, Unit
from qnas.errors import UsageError
from qnas.export import run as _export
from qnas.export.checks.report import CheckReport
from qnas.export.options import Options
from qnas.export.run import Exported
from qnas.files import check_outputs
from qnas.images.evaluation import Image
from qnas.images.files import images_in
from qnas.integer.interpreter import upscaler
from qnas.integer.network import IntegerNetwork
from qnas.network.architecture import Architecture
from qnas.one_writer import one_writer
from qnas.runtime_bench import benchmark as _bench
from qnas.runtime_bench import upscale as _upscale
from qnas.runtime_bench.benchmark import BenchReport
from qnas.runtime_bench.gate.limits import parse_limit
from qnas.runtime_bench.gate.request import Request, check_request
from qnas.runtime_bench.gate.run import run_gate
from qnas.runtime_bench.gate.verdict import GateReport
from qnas.runtime_bench.measure import Schedule
from qnas.runtime_bench.workers.process import LoadOptions

if TYPE_CHECKING:
    from qnas.finetuning.finetune_run import Finetuned
    from qnas.torch.checkpoint import Found

Name = str | PathLike[str]
Told = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class Model:
    """A network from a file. `network`: its integers, None where `why_float` names what has none."""

    path: Path
    scale: int
    network: IntegerNetwork | None
    why_float: str

    def upscale(self, image: Image) -> Image:
        """uint8 [H, W, C] -> uint8 [s H, s W, C], as the definition computes it (slowly, in numpy).

        Raises UsageError for a network that is not integer throughout, which has no definition.
        """
        if self.network is None:
            raise UsageError(f"{self.why_float}; export it, and use qnas.upscale")
        return upscaler(self.network)(image)


def load(path: Name, *, calibration: Name | None = None) -> Model:
    """Read a found.pt, a QDQ ONNX model, or with its `calibration` a float one. A found.pt needs torch."""
    options = Options(("onnx-qdq",), calibration=_path(calibration))
    source = _export.read_network(Path(path), options)
    return Model(Path(path), source.scale, source.integer, source.why_float)


def search(
    data: Name | Sequence[Name], output: Name, *, space: str = "basic", resume: bool = False,
    force: bool = False, threads: int = 0, progress: Told | None = None, **options: Any,
) -> Architecture:  # fmt: skip
    """Search `space` on the images of `data`, and fill the folder `output`. Needs torch.

    `options` are those of `qnas-search run`, with underscores: bits="4,8", penalty=1e-4, epochs=20, ...
    """
    from qnas.network.architecture import find_architecture
    from qnas.search.runs.run_folder import ARCHITECTURE, read_plan
    from qnas.search.runs.search_options import search_plan
    from qnas.search.search_run import run_search

    folder, tell = Path(output), progress or _silent
    plan = read_plan(folder) if resume else search_plan({"space": space, "data": _paths(data), **options})
    run_search(
        plan, folder, threads, resume=resume, force=force,
        show=lambda news: tell("searching", news.step / plan.recipe.steps),
    )  # fmt: skip
    return find_architecture(str(folder / ARCHITECTURE))


def train(
    architecture: str | PathLike[str], data: Name | Sequence[Name], output: Name = "found.pt", *,
    bits: int | None = None, validate: Name | None = None, warm_start: Name | None = None, patch: int = 32,
    threads: int = 0, resume: bool = False, force: bool = False, progress: Told | None = None, **recipe: Any,
) -> Found:  # fmt: skip
    """Train an architecture, a name or a JSON file, on the images of `data` and write `output`. Needs torch.

    `recipe`: steps=20000, batch=16, learning_rate=1e-3, loss="l1", seed=0, ... as in `qnas-train`.
    """
    from qnas.search.training import train_run
    from qnas.torch.checkpoint import load_found

    tell, target = progress or _silent, Path(output)
    found = train_run.architecture(str(architecture), bits, recipe.pop("levels", None))
    wanted = train_run.recipe(found, _paths(data), warm_start=_path(warm_start), patch=patch, **recipe)
    train_run.run(
        found, wanted, target, _path(validate), threads, resume=resume, force=force,
        show=lambda news: tell("training", news.step / news.steps), source=Path(architecture),
    )  # fmt: skip
    return load_found(target)


def calibrate(
    model: Name, images: Name | Sequence[Name], output: Name | None = None, *, force: bool = False,
    progress: Told | None = None, **settings: Any,
) -> Calibration:  # fmt: skip
    """Find the ranges with which a float ONNX network loses least as an integer model.

    `images`: files and folders, of high resolution with hr=True. With `output` the calibration is written
    there. `settings`: patch, count, seed, weight_bits, fallback, target, threads, ... as in `qnas-calibrate`.
    """
    target = _path(output)
    check_outputs([target], force, (Path(model), *images_in(_paths(images))))
    with one_writer(*([] if target is None else [target])):
        found = _calibrate(Path(model), _paths(images), _CalibrationSettings(**settings), _display(progress))
        if target is not None:
            write_calibration(found, target, force)
    return found


def choose_bits(
    model: Name, images: Name | Sequence[Name], output: Name | None = None, *,
    budget: str | Sequence[str] = "50%", unit: Unit = "bitops", image: str = "32x32",
    report: Name | None = None, force: bool = False, threads: int = 0, progress: Told | None = None,
    **options: Any,
) -> BitsReport:  # fmt: skip
    """Choose 4 or 8 bits for each layer of a float network, a found.pt or an architecture, for each `budget`.

    `options` are those of `qnas-search bits`: calibration, or hr=True, count, input_range; weights and
    latency_table of an architecture. Architectures need torch.
    """
    from qnas.mixed_bits import choose_bits
    from qnas.search.bits.task import bits_task

    budgets = (budget,) if isinstance(budget, str) else tuple(budget)
    task = bits_task(
        str(model), _paths(images), budgets, _path(output), unit, image, _path(report), force, threads
    )
    paths = ("calibration", "weights", "latency_table")
    given: dict[str, Any] = {k: _path(v) if k in paths else v for k, v in options.items()}
    return choose_bits(str(model), task, _display(progress), **given)


def finetune(
    model: Name, calibration: Name, data: Name | Sequence[Name], output: Name, *,
    weight_bits: int | None = None, activation_bits: int | None = None, all_layers: bool = False,
    threads: int = 0, device: str | None = None, resume: bool = False, force: bool = False,
    progress: Told | None = None, **recipe: Any,
) -> Finetuned:  # fmt: skip
    """Train the integers of a calibrated float network on the HR images of `data`. Needs torch.

    `output` is a QDQ model for `export`. `recipe`: steps=2000, batch=8, patch=32, learning_rate=1e-2,
    label_weight=0.0, seed=0, ... as in `qnas-finetune`.
    """
    from qnas.finetuning.finetune_run import finetune as run
    from qnas.finetuning.train import wanted_recipe

    wanted = wanted_recipe(_paths(data), weight_bits, activation_bits, all_layers, **recipe)
    return run(
        Path(model), Path(calibration), wanted, Path(output), threads=threads, device=device, resume=resume,
        force=force, display=_display(progress),
    )  # fmt: skip


def export(
    source: Name, output: Name | None = None, *, format: str | Sequence[str] = "onnx-qdq",
    progress: Told | None = None, **options: Any,
) -> Exported:  # fmt: skip
    """Write a network in one `format` or several, and compare the files with it in every runtime.

    `options` are those of `qnas-export`: target, layout, size=(height, width), io, images, calibration,
    check, parity, min_equal, gate, force, ... The result has the files, the report and the notes.
    """
    return _export.export(Path(source), _options(format, options), _path(output), _display(progress))


def check(
    files: Name | Sequence[Name], source: Name, *, progress: Told | None = None, **options: Any
) -> CheckReport:
    """Compare written files with the network of `source`, in every runtime that is installed.

    `options` as those of `export`: check=HR IMAGES, calibration, layers, min_equal, max_steps, gate, ...
    """
    return _export.compare(_paths(files), Path(source), _options("onnx-qdq", options), _display(progress))


def benchmark(
    models: Name | Sequence[Name], *, devices: str | Sequence[str] = (), runs: int | None = None,
    min_time: float = Schedule.seconds, warmup: int | None = None, profile: bool = False,
    progress: Told | None = None, **load: Any,
) -> BenchReport:  # fmt: skip
    """Measure ONNX and TFLite models in interleaved rounds, each in a process of its own.

    `load`: threads=1, shapes=("180x320",), cpus, device_options, ... as in `qnas-bench`.
    """
    named = (devices,) if isinstance(devices, str) else tuple(devices)
    schedule, tell = Schedule(runs, min_time, warmup), progress or _silent
    settings = _bench.Settings(named, LoadOptions(**load), schedule, profile)
    return _bench.benchmark(_paths(models), settings, lambda done: tell("measuring", done))


def gate(
    model: Name, against: Name | None = None, *, max_slowdown: float | None = 0.05,
    max_size: str | None = None, max_macs: str | None = None, max_bitops: str | None = None,
    device: str | None = None, budget: float = Request.budget, progress: Told | None = None,
    load: LoadOptions | None = None, **limits: Any,
) -> GateReport:  # fmt: skip
    """Decide whether `model` is worse than another: `verdict` is pass, fail or inconclusive.

    `limits`: baseline, max_instructions, min_integer, min_psnr, max_psnr_drop, images. Limits as "+2%" are
    relative to the old model, `max_slowdown` is a share.
    """
    bounds = {"max_size": max_size, "max_macs": max_macs, "max_bitops": max_bitops}
    parsed: dict[str, Any] = {
        name: parse_limit(f"--{name.replace('_', '-')}", text)
        for name, text in bounds.items()
        if text is not None
    }
    compared = against is not None or limits.get("baseline") is not None
    request = Request(
        Path(model), _path(against), device=device, load=load or LoadOptions(), budget=budget, **parsed,
        max_slowdown=max_slowdown if compared else None, **limits,
    )  # fmt: skip
    check_request(request)
    tell = progress or _silent
    return run_gate(request, lambda done: tell("timing", done))


def upscale(model: Name, image: Image, *, tile: int = _upscale.TILE, threads: int = 0) -> Image:
    """uint8 RGB [H, W, 3] -> uint8 [s H, s W, 3] with an ONNX model in onnxruntime, in tiles."""
    return _upscale.upscale(_upscale.load_upscaler(Path(model), threads), image, tile)


class _Told(Display):
    """Tells a callback of the steps of a calibration or an export."""

    def __init__(self, tell: Told) -> None:
        self._tell = tell

    def step(self, what: str) -> Show:
        """Begin one."""
        self._tell(what, 0.0)
        return lambda done, total: self._tell(what, done / max(total, 1))


def _display(progress: Told | None) -> Display:
    return Display() if progress is None else _Told(progress)


def _silent(what: str, share: float) -> None:
    """Nobody wants to know."""


def _options(formats: str | Sequence[str], options: dict[str, Any]) -> Options:
    names = (formats,) if isinstance(formats, str) else tuple(formats)
    paths = ("images", "calibration", "check")
    given: dict[str, Any] = {k: _path(v) if k in paths else v for k, v in options.items()}
    return Options(names, **given)


def _path(name: Name | None) -> Path | None:
    return None if name is None else Path(name)


def _paths(names: Name | Sequence[Name]) -> list[Path]:
    return [Path(name) for name in ([names] if isinstance(names, str | PathLike) else names)]
