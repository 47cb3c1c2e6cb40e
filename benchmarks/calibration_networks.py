"""Trains the networks of the calibration study: each with a clipped and with a linear output, float32 ONNX.

python benchmarks/calibration_networks.py --work FOLDER --data ../shared/data [--only NAME]

Some minutes each on one thread. A network whose file is in FOLDER is left alone, so a second call trains what
is missing. Needs T91 and BSDS200, and Set14 for the PSNR in NAME.json.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch.nn import functional as F

from qnas.images.evaluation import Image, evaluate
from qnas.images.resize import resize_bicubic
from qnas.search.training.data import Crops, load_crops
from qnas.testing.sr_modules import (
    Abpn,
    Network,
    abpn_like,
    espcn,
    export,
    in_grey_levels,
    rfdn_like,
    xlsr_like,
)
from qnas.torch.inference import to_network, to_pixels

BATCH, PATCH, SEED, OPSET = 8, 24, 0, 17
CACHE_MIB = 512
TRAINING = ("T91", "BSDS200")
VALIDATION = "Set14"
EVERY = 100  # steps between two lines of progress


@dataclass(frozen=True)
class Recipe:
    """How a network is made (with a clip or not) and trained."""

    make: Callable[[bool], Network]
    steps: int
    rate: float


FAMILIES = {
    "abpn": Recipe(lambda clip: abpn_like(clip, channels=28, depth=6), 8000, 2e-3),
    "xlsr": Recipe(lambda clip: xlsr_like(clip, channels=32, depth=3), 8000, 2e-3),
    "espcn": Recipe(lambda clip: espcn(clip, channels=64), 8000, 2e-3),
    "rfdn": Recipe(lambda clip: rfdn_like(clip, channels=24, depth=2), 4000, 2e-3),
}
NAMES = tuple(f"{family}-{output}" for family in FAMILIES for output in ("clip", "linear"))


def train(recipe: Recipe, clip: bool, crops: Crops, steps: int) -> Network:
    """L1, Adam, a cosine down to zero."""
    network = recipe.make(clip).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for step in range(steps):
        lr, hr = crops.batch(SEED, step, BATCH, PATCH)
        loss = F.l1_loss(network(lr), hr)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if (step + 1) % EVERY == 0:
            mean = 255 * sum(losses[-EVERY:]) / EVERY
            click.echo(f"  step {step + 1} of {steps}: L1 {mean:.3f} grey levels", err=True)
    return network.eval()


def upscaler(network: Network) -> Callable[[Image], Image]:
    """`network` as a function of uint8 images [H, W, 3]."""

    def upscale(image: Image) -> Image:
        with torch.no_grad():
            pixels: Image = to_pixels(network(to_network(image[None], "paper")), "paper")[0]
        return pixels

    return upscale


def bicubic(scale: int) -> Callable[[Image], Image]:
    """What every network has to beat."""

    def upscale(image: Image) -> Image:
        height, width = image.shape[:2]
        return np.asarray(resize_bicubic(image, (height * scale, width * scale)))

    return upscale


def make(name: str, work: Path, data: Path, share: float) -> None:
    """Train `name` and write its two files; the ONNX file last, for it says that all is there."""
    family, output = name.split("-")
    recipe = FAMILIES[family]
    scale = recipe.make(True).scale
    steps = max(EVERY, round(recipe.steps * share))
    started = time.monotonic()
    crops = load_crops([data / each for each in TRAINING], scale, PATCH, CACHE_MIB, arithmetic="paper")
    network = train(recipe, output == "clip", crops, steps)
    seconds = time.monotonic() - started
    found = {
        "name": name,
        "scale": scale,
        "steps": steps,
        "seconds": round(seconds),
        "psnr_y": evaluate(upscaler(network), data / VALIDATION, scale).psnr,
        "bicubic": evaluate(bicubic(scale), data / VALIDATION, scale).psnr,
    }
    click.echo(
        f"{name}: {VALIDATION} {found['psnr_y']:.3f} dB, bicubic {found['bicubic']:.3f}, {seconds:.0f} s"
    )
    (work / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if isinstance(network, Abpn):  # its paper has images in 0..255
        network = in_grey_levels(network)
    export(network, work / f"{name}.part", OPSET).rename(work / f"{name}.onnx")


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="All if none is named.")
@click.option("--share", default=1.0, show_default=True, help="Of the steps.")
def main(work: Path, data: Path, only: tuple[str, ...], share: float) -> None:
    """Train the networks that are missing."""
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    for name in only or NAMES:
        if not (work / f"{name}.onnx").exists():
            click.echo(f"{name}: training", err=True)
            make(name, work, data, share)


if __name__ == "__main__":
    main()
