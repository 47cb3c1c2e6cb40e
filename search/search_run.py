"""One search in one folder: checks first, live progress, a log, arch.json at the end; resumable."""

import shlex
from collections.abc import Callable
from pathlib import Path

import torch

from qnas.errors import CheckpointError, QnasError, UsageError
from qnas.images.files import list_images
from qnas.images.inputs import check_unchanged, digests
from qnas.one_writer import remove_leftovers
from qnas.search.runs.plan_checks import candidate_costs, check_plan, target_of
from qnas.search.runs.result import Reached, make_folder, write_result
from qnas.search.runs.run_folder import (
    ARCHITECTURE,
    PLAN,
    REPORT,
    RESULT,
    STATE,
    Begun,
    SearchPlan,
    read_begun,
    write_begun,
)
from qnas.search.runs.search_display import display, shown_cost, shown_excess
from qnas.search.runs.search_log import SearchLog
from qnas.search.space.candidate_costs import CandidateCosts
from qnas.search.supernet.alphas import certainty
from qnas.search.supernet.state import Search, start
from qnas.search.supernet.state import resume as resumed
from qnas.search.supernet.supernet_search import StepNews, search_on
from qnas.search.supernet.target import WITHIN, Target
from qnas.search.supernet.world import World, joined_world, own_device, own_threads
from qnas.terminal import Terminal, stderr
from qnas.torch.environment import Environment, environment, notice, threads_of
from qnas.torch.threads import torch_threads


def run_search(
    plan: SearchPlan, folder: Path, threads: int = 0, *, resume: bool = False, force: bool = False,
    show: Callable[[StepNews], None] | None = None,
) -> None:  # fmt: skip
    """Search as `plan` says and fill `folder` (see `run_folder`).

    Progress is shown on stderr, or with `show`, which hears of every step, not at all.

    `threads` 0: all cores, divided among torchrun's processes; of these the first alone writes and tells.
    Ctrl-C and SIGTERM save the state and raise KeyboardInterrupt. Raises QnasError; once the search is under
    way its message says where the last good checkpoint is.
    """
    device = own_device()
    begun = read_begun(folder) if resume else None
    count = threads_of(threads, begun.environment if begun else None, own_threads(), str(folder))
    with torch_threads(count), joined_world(device) as world:
        check_plan(plan)
        world.check_batch(plan.recipe.batch)
        costs = candidate_costs(plan)
        target = target_of(plan, costs)
        log = None
        try:
            with world.agreed():
                if world.rank == 0:
                    now = environment(device, count, world.size)
                    log = _prepared(folder, plan, now, begun, force)
                    if begun and begun.environment and (text := notice(begun.environment, now)):
                        _tell(stderr(quiet=show is not None), text)
            with world.agreed():
                search = _search(plan, folder, device, world)
            _run(search, plan, costs, target, folder, log, show)
        finally:
            if log:
                log.close()


def _prepared(
    folder: Path, plan: SearchPlan, now: Environment, begun: Begun | None, force: bool
) -> SearchLog:
    """The log of a folder that is ready: nothing but search.json, or as the resumed search left it."""
    if begun is None:
        _check_free(folder, plan, force)
        make_folder(folder)
    else:
        _check_same(folder, plan, begun.plan)
    log = SearchLog(folder)
    try:
        remove_leftovers(folder)
        table = plan.recipe.latency_table
        inputs = digests(map(Path, (*plan.recipe.data, *([table] if table else []))))
        if begun is None:
            for name in (STATE, ARCHITECTURE, RESULT, REPORT):
                (folder / name).unlink(missing_ok=True)
            write_begun(folder, plan, now, inputs)
        else:
            check_unchanged(begun.inputs, inputs, "begin again with --force")
    except Exception:
        log.close()
        raise
    return log


def _check_free(folder: Path, plan: SearchPlan, force: bool) -> None:
    """Raise UsageError before anything is lost; a search without a checkpoint is nothing to lose."""
    worth = [name for name in (STATE, ARCHITECTURE, RESULT) if (folder / name).exists()]
    if worth and not force:
        raise UsageError(
            f"{folder} holds a search ({worth[0]}): continue it with --resume, or discard it with --force"
        )
    for data in plan.recipe.data:
        list_images(Path(data))


def _check_same(folder: Path, plan: SearchPlan, begun: SearchPlan) -> None:
    """Raise UsageError, naming the first option that differs."""
    for option, then, now in begun.differences(plan):
        raise UsageError(
            f"{folder} was begun with {option} {then}, not {now}: repeat the options of that "
            "run, leave them out, or begin again with --force"
        )


def _search(plan: SearchPlan, folder: Path, device: torch.device, world: World) -> Search:
    """From the checkpoint when there is one, else from the start."""
    state = folder / STATE
    if not state.exists():
        return start(plan.space, plan.recipe, device, world)
    search = resumed(state, device, world)
    if any(SearchPlan(search.space, search.recipe, plan.image).differences(plan)):
        raise CheckpointError(f"{state} is of another search than {PLAN} beside it: begin again with --force")
    return search


def _run(
    search: Search, plan: SearchPlan, costs: CandidateCosts, target: Target | None, folder: Path,
    log: SearchLog | None, show: Callable[[StepNews], None] | None,
) -> None:  # fmt: skip
    """Go on to the end from where the search is. Processes without a log are silent."""
    console = stderr(quiet=log is None or show is not None)
    state = folder / STATE
    try:
        with search.world.agreed():
            if log:
                log.cut(search.step, search.seconds)
        if search.step < search.recipe.steps:
            if target:
                _warn_of(target, search, console)
            with display(console, search.recipe, costs, target) as shown:
                search_on(search, costs, state, *_listeners(search, costs, log, show or shown), target)
        if log:
            _finish(search, plan, costs, target, folder, console)
    except KeyboardInterrupt:
        text = f"stopped at step {search.step} of {search.recipe.steps}"
        if search.saved == search.step:
            text += f"; continue with: qnas-search run -o {shlex.quote(str(folder))} --resume"
        _tell(console, text)
        raise
    except QnasError as error:
        good = "no checkpoint had been written"
        if search.saved is not None:
            good = f"the last good checkpoint is {state} (step {search.saved})"
        raise type(error)(f"{error}; {good}") from error


def _listeners(
    search: Search, costs: CandidateCosts, log: SearchLog | None, show: Callable[[StepNews], None]
) -> tuple[Callable[[StepNews], None], Callable[[Search], None]]:
    """What hears of every step and of every epoch."""
    if log is None:
        return lambda news: None, lambda search: None

    def on_step(news: StepNews) -> None:
        log.step(search, news)
        show(news)

    return on_step, lambda search: log.epoch(search, costs)


def _warn_of(target: Target, search: Search, console: Terminal) -> None:
    """Say so where no architecture of the space costs what it is to."""
    nearest = target.choices(search.space, list(search.supernet.alphas))
    if not target.within(nearest):
        cost = shown_cost(target.costs.of(nearest), search.recipe.cost)
        _tell(
            console,
            f"warning: no architecture of {search.space.name} costs what --target-bitops asks for, within "
            f"{WITHIN:.0%}: the nearest costs {cost}, {shown_excess(target.excess(nearest))}",
        )


def _finish(
    search: Search, plan: SearchPlan, costs: CandidateCosts, target: Target | None, folder: Path,
    console: Terminal,
) -> None:  # fmt: skip
    """Write arch.json, result.json and the page."""
    choices, recipe = search.choices(), search.recipe
    certain = dict(zip(search.space.variables, certainty(list(search.supernet.alphas)), strict=True))
    reached, told = None, ""
    if target:
        likeliest = costs.of(choices)
        choices = target.choices(search.space, list(search.supernet.alphas))
        reached = Reached(target.cost, target.excess(choices), likeliest)
        told = (
            f", {shown_excess(reached.excess)} (the likeliest of all: {shown_cost(likeliest, recipe.cost)})"
        )
    write_result(
        folder, search.space.architecture(choices), space_name=search.space.name, method="search",
        image=plan.image, cost=recipe.cost, certainty=certain, seconds=search.seconds, steps=search.step,
        reached=reached,
    )  # fmt: skip
    from qnas.search.report.page import write_report  # matplotlib is slow to import

    write_report(folder, folder / REPORT, force=True)
    path, (height, width) = folder / ARCHITECTURE, plan.image
    _tell(
        console,
        f"wrote {path}: {shown_cost(costs.of(choices), recipe.cost)} at {height}x{width}{told}, "
        f"largest probabilities {min(certain.values()):.2f} to {max(certain.values()):.2f}; "
        f"pictures in {folder / REPORT}; train it with: qnas-train {path} --data FOLDER",
    )


def _tell(console: Terminal, text: str) -> None:
    console.print(text, soft_wrap=True)
