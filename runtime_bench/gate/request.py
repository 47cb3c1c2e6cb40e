"""What a gate was asked for, and whether it fits together."""

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from qnas.errors import UsageError
from qnas.export.formats.table import files_of
from qnas.files import check_outputs
from qnas.images.files import images_in
from qnas.runtime_bench.gate.limits import Limit
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.runtimes.inputs import parse_shape

BUDGET = 60.0  # s


@dataclass(frozen=True)
class Request:
    """Limits that are None are not gated. `max_slowdown` and `max_instructions` are relative: 0.05 is 5 %."""

    model: Path
    against: Path | None = None
    baseline: Path | None = None
    device: str | None = None
    load: LoadOptions = field(default_factory=LoadOptions)
    max_slowdown: float | None = None
    max_instructions: float | None = None
    max_size: Limit | None = None
    max_macs: Limit | None = None
    max_bitops: Limit | None = None
    min_integer: float | None = None
    min_psnr: float | None = None
    max_psnr_drop: float | None = None
    images: Path | None = None
    budget: float = BUDGET


@dataclass(frozen=True)
class Outputs:
    """The files to write, None: not."""

    json: Path | None = None
    markdown: Path | None = None
    junit: Path | None = None


def check_request(request: Request) -> None:
    """Raise UsageError for what can be wrong before any file is read."""
    if request.against is not None and request.baseline is not None:
        raise UsageError("--against and --baseline both say what to compare with: give one")
    limits = (request.max_size, request.max_macs, request.max_bitops)
    psnr = (request.min_psnr, request.max_psnr_drop)
    others = (*limits, *psnr, request.max_slowdown, request.max_instructions, request.min_integer)
    if all(limit is None for limit in others):
        raise UsageError("nothing is gated: give --against OLD, --baseline FILE or a limit, see --help")
    if request.against is None:
        for option, relative in {
            "--max-size": request.max_size is not None and request.max_size.relative,
            "--max-macs": request.max_macs is not None and request.max_macs.relative,
            "--max-bitops": request.max_bitops is not None and request.max_bitops.relative,
            "--max-psnr-drop": request.max_psnr_drop is not None,
            "--instructions": request.max_instructions is not None,
        }.items():
            if relative:
                raise UsageError(f"{option} compares with an old model: give --against OLD")
    if (request.images is None) != all(limit is None for limit in psnr):
        raise UsageError("--images goes with --min-psnr or --max-psnr-drop: give both")
    for text in request.load.shapes:
        parse_shape(text)


def check_free(outputs: Outputs, request: Request, force: bool) -> None:
    """Raise OutputError for files that cannot be written, or would replace what is read."""
    models = (file for path in (request.model, request.against) if path for file in files_of(path))
    written = (outputs.json, outputs.markdown, outputs.junit)
    check_outputs(written, force, chain(models, [request.baseline], images_in([request.images])))
