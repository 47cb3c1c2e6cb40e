"""Small searches, for one process or for several: torchrun parallel_searches.py DATA OUT."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from qnas.errors import OutputError, QnasError
from qnas.network.architecture import Normalization
from qnas.search.runs.run_folder import SearchPlan
from qnas.search.search_run import run_search
from qnas.search.space.candidate_costs import counted_costs
from qnas.search.space.search_space import SearchSpace
from qnas.search.supernet.bit_mixing import Mixer
from qnas.search.supernet.recipe import SearchRecipe
from qnas.search.supernet.state import Search, resume, start
from qnas.search.supernet.supernet_search import StepNews, search_on
from qnas.search.supernet.world import World, joined_world

CPU = torch.device("cpu")
OPERATIONS = {"*": ("simple_3x3", "growth2_3x3")}
CASES: dict[str, tuple[Mixer, Normalization]] = {
    "shared-adq": ("shared", "adq"),
    "shared-bn": ("shared", "bn"),
    "san-adq": ("san", "adq"),
    "san-bn": ("san", "bn"),
    "san-adadm": ("san", "adadm"),
}
SINGLE = "san-adq"  # in single precision as well, where a last bit may round a quantizer's input elsewhere
OnStep = Callable[[StepNews], None]


def plan(case: str, data: Path) -> SearchPlan:
    """A search of 9 steps, 6 of them of the alphas too."""
    mixer, normalization = CASES[case]
    space = SearchSpace("tiny", "basic", 6, 1, 2, (4, 8), OPERATIONS, normalization)
    recipe = SearchRecipe(
        (str(data),), mixer=mixer, epochs=3, epoch_steps=3, warm_up=1, batch=4, patch=8, learning_rate=0.01,
        alpha_rate=0.01, cache_mib=8,
    )  # fmt: skip
    return SearchPlan(space, recipe, (16, 16))


def begin(case: str, data: Path, world: World) -> Search:
    """In torch's default precision."""
    wanted = plan(case, data)
    return start(wanted.space, wanted.recipe, CPU, world)


def finish(search: Search, state: Path, on_step: OnStep = lambda news: None) -> Search:
    """Run to the last step."""
    search_on(search, counted_costs(search.space, "bitops", 16, 16), state, on_step, lambda search: None)
    return search


def alphas(search: Search) -> list[list[list[float]]]:
    """[O][B] for each variable."""
    return [alpha.tolist() for alpha in search.supernet.alphas]


@contextmanager
def in_double() -> Iterator[None]:
    """Inside, searches begin in double precision."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def ending(act: Callable[[], object]) -> str:
    """How `act` ended: the kind of its error and the message."""
    try:
        act()
    except (QnasError, KeyboardInterrupt) as error:
        return f"{type(error).__name__}: {error}"
    return "well"


def stories(world: World, data: Path, out: Path) -> dict[str, object]:
    """What happens to this process when one of two comes to grief."""

    def broken(news: StepNews) -> None:
        if news.step == 2 and world.rank == 1:
            with torch.no_grad():
                search.supernet.weights()[0].fill_(torch.nan)

    def full_disk(news: StepNews) -> None:
        if news.step == 2 and world.rank == 0:
            raise OutputError("the disk is full")

    def stopped(news: StepNews) -> None:
        if news.step == 4 and world.rank == 1:
            signal.raise_signal(signal.SIGTERM)

    told: dict[str, object] = {"single": alphas(finish(begin(SINGLE, data, world), out / "single.pt"))}
    search = begin(SINGLE, data, world)
    told["not a number"] = ending(lambda: finish(search, out / "nan.pt", broken))
    told["news"] = ending(lambda: finish(begin(SINGLE, data, world), out / "news.pt", full_disk))
    told["state"] = ending(lambda: finish(begin(SINGLE, data, world), out / "no folder" / "state.pt"))
    told["data"] = ending(lambda: finish(begin(SINGLE, data / str(world.rank), world), out / "data.pt"))
    search = begin(SINGLE, data, world)
    told["signal"] = ending(lambda: finish(search, out / "stopped.pt", stopped))
    told["stopped at"] = search.step
    dist.barrier()
    told["resumed"] = alphas(finish(resume(out / "stopped.pt", CPU, world), out / "resumed.pt"))
    return told


def main() -> None:
    """A run folder, every case and story, each process into its own `RANK.json`; states into `CASE.pt`."""
    data, out = map(Path, sys.argv[1:])
    with joined_world(CPU) as world:
        run_search(plan(SINGLE, data), out / "run", threads=1)
        told: dict[str, object] = {}
        with in_double():
            for case in CASES:
                told[case] = alphas(finish(begin(case, data, world), out / f"{case}.pt"))
        told |= stories(world, data, out)
        if world.rank == 1:
            (out / "1.json").write_text(json.dumps(told))
            os._exit(0)  # as if it were killed
        told["left alone"] = ending(lambda: world.any(False))
    told["a group is left"] = dist.is_initialized()
    (out / "0.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
