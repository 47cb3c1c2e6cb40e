"""The gates whose numbers are counted and not timed: they decide at once, and before anything is timed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qnas.cost.file_cost import FileCost
from qnas.errors import ModelError, UsageError
from qnas.export.formats.table import file_kind
from qnas.images.evaluation import pairs
from qnas.images.quality import psnr_y
from qnas.runtime_bench.gate.limits import Limit
from qnas.runtime_bench.gate.request import Request
from qnas.runtime_bench.gate.verdict import Row, at_least, at_most
from qnas.runtime_bench.model_files import ModelFiles
from qnas.runtime_bench.profile.delegation import delegation
from qnas.runtime_bench.upscale import load_upscaler, upscale
from qnas.runtime_bench.workers.protocol import Loaded
from qnas.runtimes.executed import ExecutedNode


@dataclass(frozen=True)
class Subject:
    """A model as it was loaded on its device; `executed` asks what ran there, and on which provider."""

    files: ModelFiles
    loaded: Loaded
    executed: Callable[[], tuple[Sequence[ExecutedNode], str]]

    @cached_property
    def cost(self) -> FileCost:
        """Raises ModelError where it is not known."""
        return file_kind(self.files.path).cost(self.files.path, self.loaded.input_shapes)


def deterministic_rows(request: Request, new: Subject, old: Subject | None) -> Iterator[Row]:
    """One row a limit; raises ModelError, ImageError or UsageError where a number cannot be had."""
    counts: Sequence[tuple[str, str, Limit | None, Callable[[Subject], float]]] = (
        ("size", "bytes", request.max_size, lambda each: each.files.size),
        ("MACs", "MACs", request.max_macs, lambda each: _counted(each).macs),
        ("BitOps", "BitOps", request.max_bitops, lambda each: _counted(each).bitops),
    )
    for gate, unit, limit, count in counts:
        if limit is not None:
            before = None if old is None else count(old)
            yield at_most(gate, unit, count(new), before, limit.most(before))
    if request.min_integer is not None:
        share = integer_share(new)
        before = None if old is None else integer_share(old)
        yield at_least("integer share", "share", share, before, request.min_integer, "of the MACs executed")
    if request.images is not None:
        yield from _psnr_rows(request, request.images, new, old)


def _counted(subject: Subject) -> FileCost:
    """The cost, when it covers the whole model: a limit on a part of it would pass what it never saw."""
    if subject.cost.uncovered:
        named = ", ".join(subject.cost.uncovered)
        raise ModelError(f"{subject.files.path}: the cost of {named} is not known; leave that limit out")
    return subject.cost


def integer_share(subject: Subject) -> float:
    """Multiply-adds seen to be integer, of all that ran; ModelError where the runtime does not show them."""
    found = delegation(*subject.executed(), subject.cost.macs)
    if found.unknown_macs:
        path = subject.files.path
        raise ModelError(f"{path}: {found.provider} does not tell how it multiplies; leave --min-integer out")
    return found.integer_share


def _psnr_rows(request: Request, images: Path, new: Subject, old: Subject | None) -> Iterator[Row]:
    threads = request.load.threads
    scale, psnr = mean_psnr(new.files.path, images, threads)
    before = None
    if old is not None:
        old_scale, before = mean_psnr(old.files.path, images, threads)
        if old_scale != scale:
            raise UsageError(
                f"{new.files.path} enlarges by {scale}, {old.files.path} by {old_scale}: their PSNR cannot "
                "be compared; choose models of one scale"
            )
    detail = f"mean on Y over {images}, x{scale}"
    if request.min_psnr is not None:
        yield at_least("PSNR", "dB", psnr, before, request.min_psnr, detail)
    if request.max_psnr_drop is not None and before is not None:
        yield at_least("PSNR drop", "dB", psnr, before, before - request.max_psnr_drop, detail)


def mean_psnr(model: Path, images: Path, threads: int) -> tuple[int, float]:
    """Scale of an ONNX model, and its mean PSNR-Y in dB over a folder of HR images (LR by bicubic)."""
    upscaler = load_upscaler(model, threads)
    scores = [psnr_y(upscale(upscaler, lr), hr, upscaler.scale) for lr, hr in pairs(images, upscaler.scale)]
    return upscaler.scale, sum(scores) / len(scores)
