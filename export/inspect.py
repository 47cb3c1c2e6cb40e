"""`qnas-inspect`: a found.pt, or a file of any format -> a row for each of its layers."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from qnas.errors import ModelError, UsageError
from qnas.export.formats.table import FILE_KINDS
from qnas.export.inspection.inspection import Inspection, Request, inspected_network
from qnas.export.inspection.layer_rows import layer_rows
from qnas.export.sources.read import kind_of


def inspect(path: Path, request: Request) -> Inspection:
    """Read `path` by its ending. Raises QnasError; nothing of the file is executed."""
    readers: dict[str, Callable[[Path, Request], Inspection]] = {".pt": _found}
    readers |= {suffix: kind.inspect for suffix, kind in FILE_KINDS.items()}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise UsageError(f"{path} is of no known kind: name a {', '.join(readers)} file")
    if not path.is_file():
        raise UsageError(f"{path} is not a file: check the path")
    inspection = replace(read(path, request), file=path.name, file_bytes=path.stat().st_size)
    if not inspection.rows:
        raise ModelError(f"{path} holds no operation: export it again")
    return replace(inspection, notes=(*inspection.notes, *_of_float(path)))


def _of_float(path: Path) -> tuple[str, ...]:
    """Where a network is float, a note that names who knows its future."""
    with suppress(ModelError):  # of operations that no calibration reads
        if kind_of(path) == "float":
            return (f"qnas-calibrate {path.name} --dry-run says what becomes of it in integers",)
    return ()


def _found(path: Path, request: Request) -> Inspection:
    """The integer network that every export holds, or of a float network its layers."""
    from qnas.export.integers import integer_network
    from qnas.torch.checkpoint import load_found  # torch, which the other kinds do without

    found = load_found(path)
    try:
        network = integer_network(found)
    except ModelError as error:
        rows = layer_rows(found.network.layers, request.height, request.width)
        notes = (f"no integer network, so only what its layers cost: {error}",)
        return Inspection("", "found.pt", 0, rows, (request.height, request.width), notes=notes)
    return inspected_network(network, "found.pt", request)
