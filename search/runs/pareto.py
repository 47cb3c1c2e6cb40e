"""The Pareto front of networks: best quality for the fewest BitOps, as CSV and JSON."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from qnas.search.runs.result import write_json, write_text

FORMAT = "qnas-pareto"
VERSION = 1
COLUMNS = (
    "name", "method", "space", "bits", "penalty", "seed", "macs", "bitops", "psnr_y", "ssim", "on_front",
    "failed",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One trained network, or one that failed; PSNR-Y in dB. What it has not is None."""

    name: str
    method: str
    space: str
    bits: tuple[int, ...]
    penalty: float | None
    seed: int
    macs: int | None = None
    bitops: int | None = None
    psnr_y: float | None = None
    ssim: float | None = None
    failed: str | None = None

    @property
    def point(self) -> tuple[float, float] | None:
        """(BitOps, PSNR-Y) of a trained network."""
        if self.failed is not None or self.bitops is None or self.psnr_y is None or math.isnan(self.psnr_y):
            return None
        return self.bitops, self.psnr_y


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
    write_json(folder / "pareto.json", {"format": FORMAT, "version": VERSION, "members": members})
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "bits": " ".join(map(str, row["bits"]))} for row in rows)
    write_text(folder / "pareto.csv", text.getvalue())
