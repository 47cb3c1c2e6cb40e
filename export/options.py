"""What `qnas-export` was told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qnas.export.from_qdq.reader import InputRange
from qnas.export.targets import Layout

Adq = Literal["frozen", "per-image"]  # ADQ's factor: its mean, or one that each image decides


@dataclass(frozen=True)
class Options:
    """The options of an export. `size`: (height, width) of a .tflite file, None for every size.

    HR `images` decide what the source leaves open; `check`, or else they, are what is compared on. Without
    `simplified` onnxsim is left out, which takes seconds to load and changes no result.
    """

    formats: tuple[str, ...]
    target: str | None = None
    layout: Layout = "nchw"
    size: tuple[int, int] | None = None
    io: Literal["int8", "uint8"] = "int8"
    input_range: InputRange | None = None
    adq: Adq = "frozen"
    saturation: Literal["ignore", "warn", "error"] = "ignore"
    images: Path | None = None
    calibration: Path | None = None
    check: Path | None = None
    parity: bool = True
    layers: bool = False
    html: bool = False
    min_equal: float = 0.999
    max_steps: int = 1
    gate: tuple[str, ...] = ()
    force: bool = False
    simplified: bool = True
