"""The whole road in a few minutes: an example network, then a tiny one that is trained here.

Run it with scripts/demo. It prints every qnas command before it runs it, and writes to demo/.
"""

import json
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from qnas.images.evaluation import shrink
from qnas.images.files import write_png
from qnas.images.quality import psnr_y
from qnas.images.resize import resize_bicubic
from qnas.images.samples import sample_photographs

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "basic-w48" / "found.pt"
FOLDER = ROOT / "demo"
SCALE = 4
HELD_OUT = "chelsea"
CROP = (slice(40, 200), slice(120, 320))  # of the held-out photograph: its eyes
console = Console() if Console().is_terminal else Console(width=100)


@dataclass(frozen=True)
class Result:
    """One line of the closing table."""

    network: str
    psnr: float
    equal: float
    integer: str
    milliseconds: float
    speedup: float
    kilobytes: float


def command(*words: object) -> None:
    """Show and run one command line of this environment."""
    line = [str(word) for word in words]
    console.print(f"\n[bold]$ {shlex.join(line)}[/bold]", soft_wrap=True)
    program = Path(sys.executable).with_name(line[0])
    subprocess.run([program, *line[1:]], check=True, cwd=FOLDER)


def prepare() -> tuple[Path, Path]:
    """A folder of training photographs, and the held-out one shrunk to a quarter."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    photographs = FOLDER / "photographs"
    photographs.mkdir(parents=True)
    small = FOLDER / f"{HELD_OUT}_small.png"
    for name, image in sample_photographs():
        if Path(name).stem == HELD_OUT:
            write_png(small, shrink(_cropped(image), SCALE))
        else:
            write_png(photographs / f"{Path(name).stem}.png", image)
    return photographs, small


def measure(name: str, found: Path, small: Path) -> Result:
    """Export `found` twice, prove the integer model, time both, upscale the held-out photograph."""
    command("qnas-export", found, "--format", "onnx-qdq", "-o", f"{name}.onnx")
    command("qnas-export", found, "--format", "onnx-float32", "-o", f"{name}_float32.onnx", "--no-parity")
    command(
        "qnas-bench",
        f"{name}.onnx",
        f"{name}_float32.onnx",
        "--device",
        "cpu",
        "--json",
        f"{name}_bench.json",
    )
    command("qnas-upscale", f"{name}.onnx", small.name, "-o", f"{HELD_OUT}_{name}.png")
    (file,) = json.loads((FOLDER / f"{name}.parity.json").read_text())["files"]
    (runtime,) = [each for each in file["runtimes"] if each["runtime"] == "onnxruntime"]
    bench = json.loads((FOLDER / f"{name}_bench.json").read_text())
    integer, float32 = bench["models"]
    upscaled = np.asarray(Image.open(FOLDER / f"{HELD_OUT}_{name}.png"))
    return Result(
        network=name,
        psnr=psnr_y(upscaled, _original(), SCALE),
        equal=runtime["against"]["torch"]["equal"],
        integer=f"{file['fusion']['integer']} of {file['fusion']['total']}",
        milliseconds=integer["latency_ns"]["value"] / 1e6,
        speedup=float32["ratio_to_first"]["value"],
        kilobytes=(FOLDER / f"{name}.onnx").stat().st_size / 1000,
    )


def picture(names: list[str]) -> Path:
    """Bicubic, the networks and the original side by side, labelled."""
    original = _original()
    enlarged = resize_bicubic(shrink(original, SCALE), original.shape[:2])
    shown = {"bicubic": enlarged}
    shown |= {name: np.asarray(Image.open(FOLDER / f"{HELD_OUT}_{name}.png")) for name in names}
    panels = []
    for label, pixels in {**shown, "original": original}.items():
        panel = Image.fromarray(pixels[CROP]).resize((600, 480), Image.Resampling.NEAREST)
        ImageDraw.Draw(panel).text(
            (8, 6), label, fill="white", stroke_width=2, stroke_fill="black", font_size=24
        )
        panels.append(np.asarray(panel))
    path = FOLDER / "before_after.png"
    write_png(path, np.concatenate(panels, axis=1))
    return path


def _cropped(image: np.ndarray) -> np.ndarray:
    return image[: image.shape[0] // SCALE * SCALE, : image.shape[1] // SCALE * SCALE]


def _original() -> np.ndarray:
    return _cropped(next(image for name, image in sample_photographs() if Path(name).stem == HELD_OUT))


def main() -> None:
    started = time.monotonic()
    photographs, small = prepare()
    console.rule("1. an example network, trained before")
    results = [measure("example", Path("..", *EXAMPLE.parts[-3:]), small)]
    console.rule("2. a tiny network, trained now")
    command(
        "qnas-train", "espcn-w8", "--data", photographs.name, "-o", "tiny.pt",
        "--steps", 5000, "--patch", 24, "--lr", 2e-3,
    )  # fmt: skip
    results.append(measure("tiny", Path("tiny.pt"), small))
    console.rule("result")
    table = Table(title=f"on the photograph {HELD_OUT!r}, which no network saw")
    for heading in ("network", "PSNR-Y", "equal pixels", "integer", "latency", "to float32", "model"):
        table.add_column(heading, justify="right")
    original = _original()
    bicubic = psnr_y(resize_bicubic(shrink(original, SCALE), original.shape[:2]), original, SCALE)
    table.add_row("bicubic", f"{bicubic:.2f} dB", "", "", "", "", "")
    for r in results:
        table.add_row(
            r.network, f"{r.psnr:.2f} dB", f"{r.equal:.4%}", r.integer, f"{r.milliseconds:.1f} ms",
            f"{r.speedup:.2f}x as fast", f"{r.kilobytes:.0f} kB",
        )  # fmt: skip
    console.print(table)
    for path in (
        FOLDER / "example.onnx",
        FOLDER / "example.parity.json",
        picture([r.network for r in results]),
    ):
        console.print(f"  {path.relative_to(ROOT)}", highlight=False)
    console.print(f"done in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
