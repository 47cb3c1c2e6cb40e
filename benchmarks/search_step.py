"""Time of a search step, alphas and weights, in every mixer and form; writes docs/search-speed.md.

python benchmarks/search_step.py [--space basic-small] [--rounds 8] [--threads 1]

All variants of a space take one step in every round, in random order; ratios are of medians over rounds, with
their bootstrap interval. "as written" is the paper's form (tests/support/per_operation.py): every operation
quantizes or noises its own input and weights for every bit width. Memory is the peak of a process of its own.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.progress import track

from qnas.runtime_bench.environment import current_environment
from qnas.runtime_bench.memory import own_peak
from qnas.runtime_bench.stats import median, ratio_interval
from qnas.search.space.candidate_costs import counted_costs
from qnas.search.space.search_space import find_space
from qnas.search.supernet.alphas import cost_tensors
from qnas.search.supernet.bit_mixing import Mixer
from qnas.search.supernet.recipe import SearchRecipe
from qnas.search.supernet.state import Search, optimizers, start
from qnas.search.supernet.turns import Turns
from qnas.search.supernet.world import World
from qnas.search.training.data import Crops
from qnas.testing.per_operation import PerOperationSupernet

PAGE = Path(__file__).resolve().parent.parent / "docs" / "search-speed.md"
BITS = {1: (8,), 2: (4, 8), 3: (2, 4, 8), 4: (2, 3, 4, 8)}


@dataclass(frozen=True)
class Variant:
    """One way to compute a step."""

    mixer: Mixer
    form: str  # "as written", "joined", "merged", "compiled": merged, too, "alphas every 4th": joined, too
    widths: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.mixer}, {self.form}, {self.widths}"


EVERY_FOURTH = "alphas every 4th"
BASELINE = Variant("shared", "as written", 2)
VARIANTS = tuple(
    Variant(mixer, form, widths)
    for widths in BITS
    for mixer in ("independent", "shared", "san")
    for form in ("as written", "joined", "merged", "compiled", EVERY_FOURTH)
    if form in ("as written", "joined") or (widths == 2 and mixer != "independent")
    if widths == 2 or mixer != "independent"
    if not (mixer == "san" and form == "compiled")
    if mixer == "san" or form != EVERY_FOURTH
)


def stepper(space_name: str, variant: Variant, batch: int, patch: int) -> Callable[[], float]:
    """A function that takes a step, or so many that the alphas learn once: the seconds of one of them."""
    space = find_space(space_name).with_bits(BITS[variant.widths])
    recipe = SearchRecipe(
        ("none",), mixer=variant.mixer, merged=variant.form in ("merged", "compiled"),
        compile=variant.form == "compiled", warm_up=0, batch=batch, patch=patch,
        alpha_every=4 if variant.form == EVERY_FOURTH else 1,
    )  # fmt: skip
    search = start(space, recipe, torch.device("cpu"), World())
    if variant.form == "as written":
        supernet = PerOperationSupernet(search.supernet)
        search = Search(recipe, space, supernet, *optimizers(supernet, recipe))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (2 * patch, 2 * patch, 3), np.uint8) for _ in range(4)]
    large = tuple(image.repeat(space.scale, 0).repeat(space.scale, 1) for image in images)
    crops = Crops(tuple(images), large, space.scale)
    turns = Turns(
        search,
        crops.halves(0),
        cost_tensors(space, counted_costs(space, "bitops", 32, 32), torch.device("cpu")),
    )
    turns.calibrate()

    def step() -> float:
        begun = time.perf_counter()
        for _ in range(recipe.alpha_every):
            turns.step()
        return (time.perf_counter() - begun) / recipe.alpha_every

    return step


def peak_mib(space: str, variant: Variant, batch: int, patch: int, threads: int) -> float:
    """Of a fresh process that takes three steps."""
    arguments = [
        space,
        variant.mixer,
        variant.form,
        str(variant.widths),
        str(batch),
        str(patch),
        str(threads),
    ]
    command = [sys.executable, __file__, "--peak", json.dumps(arguments)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(arguments: list[str]) -> None:
    """The other half of `peak_mib`."""
    space, mixer, form, widths, batch, patch, threads = arguments
    torch.set_num_threads(int(threads))
    step = stepper(space, Variant(mixer, form, int(widths)), int(batch), int(patch))  # type: ignore[arg-type]
    for _ in range(3):
        step()
    click.echo(own_peak() / 2**20)


def measure(
    space: str, variants: Sequence[Variant], rounds: int, batch: int, patch: int
) -> dict[str, list[float]]:
    """Seconds of each variant in each round."""
    steppers = {variant.name: stepper(space, variant, batch, patch) for variant in variants}
    seconds: dict[str, list[float]] = {name: [] for name in steppers}
    order, names = random.Random(0), list(steppers)
    for index in track(range(rounds + 1), description=space):
        order.shuffle(names)
        for name in names:
            taken = steppers[name]()
            if index:  # the first round warms up
                seconds[name].append(taken)
    return seconds


def table(seconds: dict[str, list[float]], peaks: dict[str, float]) -> list[str]:
    """A row for each variant."""
    lines = [
        "| mixer | form | bit widths | ms | times as fast | time against 1 width | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for variant in (each for each in VARIANTS if each.name in seconds):
        own = seconds[variant.name]
        ratio = ratio_interval(seconds[BASELINE.name], own)
        single = replace(variant, widths=1).name
        grown = ratio_interval(own, seconds[single]) if single in seconds else None
        lines.append(
            f"| {variant.mixer} | {variant.form} | {variant.widths} | {1000 * median(own):.0f} | "
            f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) | "
            + (f"{grown.value:.2f} ({grown.low:.2f} to {grown.high:.2f})" if grown else "")
            + f" | {peaks[variant.name]:.0f} |"
        )
    return lines


def page(results: dict[str, Any]) -> str:
    """docs/search-speed.md."""
    lines = [
        "# Time of a search step", "",
        "Made by `python benchmarks/search_step.py` with the options given, on "
        f"{current_environment('').cpu}, torch {torch.__version__}; 95 % intervals. *times as fast* as "
        "shared weights, as written, 2 widths.", "",
    ]  # fmt: skip
    for options, result in results.items():
        lines += [
            f"## {result['space']}",
            "",
            f"`{options}`",
            "",
            *table(result["seconds"], result["peaks"]),
            "",
        ]
    return "\n".join(lines)


@click.command()
@click.option("--space", default="basic-small", show_default=True)
@click.option("--widths", default="1,2,3,4", show_default=True, help="How many bit widths.")
@click.option("--rounds", default=8, show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--patch", default=32, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--results", default="search_step.json", show_default=True, type=click.Path(path_type=Path),
              help="Results of all spaces so far; the page shows them.")  # fmt: skip
@click.option("--peak", hidden=True)
def main(
    space: str,
    widths: str,
    rounds: int,
    batch: int,
    patch: int,
    threads: int,
    results: Path,
    peak: str | None,
) -> None:
    """Measure one space."""
    if peak:
        print_peak(json.loads(peak))
        return
    torch.set_num_threads(threads)
    variants = [each for each in VARIANTS if str(each.widths) in widths.split(",")]
    known = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    options = f"--space {space} --widths {widths} --rounds {rounds} --batch {batch} --patch {patch}"
    options += f" --threads {threads}"
    known[options] = {
        "space": space,
        "seconds": measure(space, variants, rounds, batch, patch),
        "peaks": {each.name: peak_mib(space, each, batch, patch, threads) for each in variants},
    }
    results.write_text(json.dumps(known), encoding="utf-8")
    PAGE.write_text(page(known), encoding="utf-8")


if __name__ == "__main__":
    main()
