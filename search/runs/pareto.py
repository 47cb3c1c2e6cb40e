"""The Pareto front of networks: best quality for the fewest BitOps, as CSV and JSON."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from qnas.documents.reading import Document, Number, Text
from qnas.files import write_file
from qnas.search.runs.result import WRITE_AGAIN, write_json

COLUMNS = (
    "name", "method", "space", "bits", "penalty", "seed", "macs", "bitops", "psnr_y", "ssim", "on_front",
    "failed",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One trained network, or one that failed; PSNR-Y in dB. What it has not is None."""

    name: Text
    method: Text
    space: Text
    bits: tuple[int, ...]
    penalty: Number | None
    seed: int
    macs: Number | None = None
    bitops: Number | None = None
    psnr_y: Number | None = None
    ssim: Number | None = None
    failed: Text | None = None

    @property
    def point(self) -> tuple[float, float] | None:
        """(BitOps, PSNR-Y) of a trained network."""
        if self.failed is not None or self.bitops is None or self.psnr_y is None or math.isnan(self.psnr_y):
            return None
        return self.bitops, self.psnr_y


@dataclass(frozen=True)
class Table:
    """pareto.json."""

    members: tuple[Entry, ...]


PARETO_FILE = Document(Table, "record of a search", WRITE_AGAIN, format="qnas-pareto", version=1)


def front(points: Sequence[tuple[float, float] | None]) -> list[bool]:
    """Whether no other (cost, quality) is as good in both and better in one; None is never on the front."""
    known = sorted({point for point in points if point is not None}, key=lambda each: (each[0], -each[1]))
    best, leaders = -math.inf, set()
    for cost, quality in known:
        if quality > best:
            best = quality
            leaders.add((cost, quality))
    return [point in leaders for point in points]


def ordered(entries: Sequence[Entry]) -> list[tuple[Entry, bool]]:
    """Entries and whether they are on the front, by BitOps; those without come last."""
    marked = list(zip(entries, front([entry.point for entry in entries]), strict=True))
    return sorted(marked, key=lambda each: each[0].point or (math.inf, 0.0))


def write_pareto(folder: Path, entries: Sequence[Entry]) -> None:
    """Write pareto.json and pareto.csv, in the order of `ordered`. Raises OutputError."""
    rows = [{**asdict(entry), "on_front": on_front} for entry, on_front in ordered(entries)]
    members = [{column: row[column] for column in COLUMNS} for row in rows]
    write_json(folder / "pareto.json", PARETO_FILE.head | {"members": members})
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "bits": " ".join(map(str, row["bits"]))} for row in rows)
    write_file(folder / "pareto.csv", text.getvalue(), force=True)
