"""What the page of one search shows."""

from collections.abc import Mapping, Sequence
from typing import Any

from qnas.html_page import Markup, element, facts, table
from qnas.search.report.alphas import alpha_cards, certainties
from qnas.search.report.curves import curve_cards
from qnas.search.report.drawing import architecture_section, architecture_text
from qnas.search.report.numbers import percent, short, si
from qnas.search.report.run_record import RunRecord
from qnas.search.supernet.recipe import recipe_document


def run_parts(run: RunRecord, crops: Sequence[Markup]) -> list[Markup]:
    """All of it, with `crops` in their place. Raises ArchitectureError."""
    parts = [element("p", _status(run)), *_warnings(run), facts(_facts(run))]
    if run.architecture:
        text = architecture_text(run.architecture)
        note = "" if run.decided else " (as the alphas are now)"
        parts += [element("h2", "Architecture"), element("p", text + note)]
        parts.append(architecture_section(run.architecture, run.image))
    if run.epochs:
        parts += [element("h2", "How the search decided"), element("p", ALPHAS, class_="soft")]
        parts.append(alpha_cards(run))
    if run.steps:
        parts += [element("h2", "Losses, entropy and cost"), curve_cards(run)]
    parts += crops
    if run.plan:
        recipe = {key: shown(value) for key, value in recipe_document(run.plan.recipe).items()}
        space = {key: shown(value) for key, value in run.plan.space.to_document().items()}
        parts += [element("h2", "What was asked"), asked("Recipe", recipe), asked("Space", space)]
    return parts


ALPHAS = (
    "The probability of each pair of operation and bits by epoch, coloured by bits, one shade for each "
    "operation; the likeliest at the end have names."
)


def asked(heading: str, values: Mapping[str, object]) -> Markup:
    """Settings, behind their heading."""
    rows = table(("", ""), values.items(), texts=2)
    return element("details", element("summary", heading), rows)


def _status(run: RunRecord) -> str:
    plan = run.plan
    if run.result:
        return f"Found by {run.result.method} in the space {run.result.space_name}."
    if not plan:
        return "An architecture, without the search that found it."
    passed = run.epochs[-1].step if run.epochs else 0
    step = max(passed, run.steps[-1].step if run.steps else 0)
    where = f"step {step:,} of {plan.recipe.steps:,}" if step else "no step has been written yet"
    return f"Under way in the space {plan.space.name}: {where}."


def _warnings(run: RunRecord) -> list[Markup]:
    if not run.unreadable:
        return []
    lines = "line" if run.unreadable == 1 else "lines"
    text = f"{run.unreadable} {lines} of the log could not be read and are left out."
    return [element("p", text, class_="warn")]


def _facts(run: RunRecord) -> dict[str, object]:
    found: dict[str, object] = {}
    if run.result:
        height, width = run.image
        found["image"] = f"{height}\N{MULTIPLICATION SIGN}{width}"
        found |= {"MACs": si(run.result.macs), "BitOps": si(run.result.bitops)}
    if run.plan:
        recipe, space = run.plan.recipe, run.plan.space
        found["bits"] = ", ".join(map(str, space.bits))
        found["architectures"] = f"{float(space.size):.2g}" if space.size > 1e6 else f"{space.size:,}"
        found["mixer"] = f"{recipe.mixer}{', merged' if recipe.merged else ''}"
        penalty = run.steps[-1].penalty if run.steps and recipe.target else None
        found["penalty"] = f"{short(penalty or recipe.penalty)} on {recipe.cost}"
        if recipe.target:
            found["target"] = _target(run, recipe.target)
        found["entropy"] = short(recipe.entropy)
        found["epochs"] = f"{recipe.epochs} of {recipe.epoch_steps:,} steps"
        found["seed"] = recipe.seed
    if certain := certainties(run):
        found["certainty"] = f"{percent(min(certain))} to {percent(max(certain))}"
    if run.result and run.result.seconds:
        found["time"] = _duration(run.result.seconds)
    return found


def _target(run: RunRecord, asked: str) -> str:
    reached = run.result and run.result.reached
    return (
        f"{asked}, {percent(abs(reached.excess))} {'more' if reached.excess > 0 else 'less'}"
        if reached
        else asked
    )


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def shown(value: Any) -> str:
    """Settings in a line of text."""
    match value:
        case dict():
            return "; ".join(f"{key}: {shown(each)}" for key, each in value.items())
        case list() | tuple():
            return ", ".join(map(shown, value))
        case float():
            return short(value)
        case _:
            return str(value)
