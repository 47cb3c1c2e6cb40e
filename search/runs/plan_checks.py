"""Whether the parts of a search's plan go together, and what its candidates cost."""

from pathlib import Path

from qnas.cost.network_cost import layer_sizes
from qnas.errors import UsageError
from qnas.network.lowering import lower
from qnas.search.runs.random_search import parse_amount
from qnas.search.runs.run_folder import SearchPlan
from qnas.search.space.candidate_costs import CandidateCosts, counted_costs
from qnas.search.supernet.compiled import check_compiler
from qnas.search.supernet.target import Target


def check_plan(plan: SearchPlan) -> None:
    """Raise UsageError when its parts do not go together."""
    recipe = plan.recipe
    if not recipe.data:
        raise UsageError("no training images: pass --data FOLDER (repeatable)")
    if recipe.warm_up >= recipe.epochs:
        raise UsageError(
            f"--warm-up {recipe.warm_up} of --epochs {recipe.epochs} leaves no epoch for the alphas: "
            "use a shorter one"
        )
    if recipe.first_alpha_step >= recipe.steps:
        raise UsageError(
            f"--alpha-every {recipe.alpha_every} leaves the alphas no step of {recipe.steps}: make it smaller"
        )
    if recipe.compile:
        if recipe.mixer == "san":
            raise UsageError("--compile is for --mixer shared or independent: san quantizes no input")
        check_compiler()
    if (recipe.cost == "latency") != (recipe.latency_table is not None):
        raise UsageError("--cost latency and --latency-table FILE need each other: pass both or neither")
    if recipe.target is not None:
        _target_amount(recipe.target)
    layers, (height, width) = lower(plan.space.placeholder), plan.image
    given = {f"--patch {recipe.patch}": (recipe.patch, recipe.patch), f"--image {height}x{width}": plan.image}
    for option, size in given.items():
        if min(min(each) for each in layer_sizes(layers, *size).values()) < 1:
            raise UsageError(
                f"{option} is too small for the pooling of {plan.space.network}: use a larger one"
            )


def candidate_costs(plan: SearchPlan) -> CandidateCosts:
    """The cost of every candidate, as the plan weighs it. Raises QnasError for a bad table of latencies."""
    recipe = plan.recipe
    if recipe.cost == "latency":
        from qnas.search.space.latency_costs import latency_costs

        return latency_costs(plan.space, Path(str(recipe.latency_table)), *plan.image)
    return counted_costs(plan.space, recipe.cost, *plan.image)


def target_of(plan: SearchPlan, costs: CandidateCosts) -> Target | None:
    """The cost at which the plan is to end, if it says one; % are of the dearest architecture's."""
    text = plan.recipe.target
    if text is None:
        return None
    amount = _target_amount(text)
    return Target(amount / 100 * costs.largest if text.endswith("%") else amount, costs)


def _target_amount(text: str) -> float:
    amount = parse_amount("--target-bitops", text.removesuffix("%"))
    if amount == 0:
        raise UsageError("--target-bitops 0 is no cost to reach: name a larger one, as 2.4G or 60%")
    return amount
