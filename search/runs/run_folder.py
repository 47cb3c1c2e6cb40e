"""The folder of one search: what was asked of it, and which files it holds."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qnas import __version__
from qnas.documents.reading import Count, Document
from qnas.errors import CheckpointError, SpaceError, UsageError
from qnas.images.inputs import Digests
from qnas.search.runs.result import write_json
from qnas.search.space.search_space import SearchSpace, from_document
from qnas.search.supernet.recipe import SearchRecipe, recipe_document, recipe_from
from qnas.torch.environment import Environment

PLAN = "search.json"  # a SearchPlan, written first
STATE = "state.pt"  # the checkpoint
LOG = "log.jsonl"
EVENTS = "tensorboard"
ARCHITECTURE = "arch.json"
RESULT = "result.json"
REPORT = "report.html"

# Recipe field or key of a space -> the option of `qnas-search run`, where its name is another.
_OPTIONS = {
    "learning_rate": "--lr",
    "alpha_rate": "--alpha-lr",
    "merged": "--mixing",
    "target": "--target-bitops",
    "network": "--space",
    "scale": "--space",
    "identical_blocks": "--space",
    "operations": "--operations",
}


@dataclass(frozen=True)
class _Plan:
    space_name: str
    space: dict[str, Any]
    recipe: dict[str, Any]
    image: tuple[Count, Count]
    environment: Environment | None = None
    inputs: Digests = field(default_factory=dict)


_FILE = Document(_Plan, "plan of a search", "begin again with --force", CheckpointError, "qnas-search-run", 1)


@dataclass(frozen=True)
class SearchPlan:
    """What is asked of a search: `image` (height, width) is the one whose cost is weighed."""

    space: SearchSpace
    recipe: SearchRecipe
    image: tuple[int, int] = (32, 32)

    def to_document(self) -> dict[str, Any]:
        """Plain data that `plan_from` reads back."""
        return {
            "space_name": self.space.name,
            "space": self.space.to_document(),
            "recipe": recipe_document(self.recipe),
            "image": list(self.image),
        }

    def differences(self, other: "SearchPlan") -> Iterator[tuple[str, str, str]]:
        """(option, its value here, its value there) for all that differs, the most telling first."""
        if self.space.name != other.space.name:
            yield "--space", self.space.name, other.space.name
        mine, its = self.to_document(), other.to_document()
        pairs = [(part, key) for part in ("space", "recipe") for key in mine[part]]
        for part, key in pairs:
            here, there = mine[part][key], its[part][key]
            if json.dumps(here) != json.dumps(there):  # the order of patterns counts
                yield option_of(key), _shown(key, here), _shown(key, there)
        if self.image != other.image:
            here, there = ("x".join(map(str, plan.image)) for plan in (self, other))
            yield "--image", here, there


def option_of(field: str) -> str:
    """The option of `qnas-search run` that sets a field of the recipe or a key of the space."""
    return _OPTIONS.get(field, "--" + field.replace("_", "-"))


def _shown(field: str, value: Any) -> str:
    """Write a value as the option would have it."""
    match value:
        case bool() if field == "merged":
            return "merged" if value else "exact"
        case list():
            return ",".join(map(str, value))
        case float():
            return f"{value:g}"
        case dict():
            return f"of {len(value)} patterns"
        case None:
            return "the default"
    return str(value)


@dataclass(frozen=True)
class Begun:
    """What search.json says: the plan, and what else decided the search when it began.

    Those of earlier versions say no environment and no inputs.
    """

    plan: SearchPlan
    environment: Environment | None
    inputs: Digests


def write_begun(folder: Path, plan: SearchPlan, environment: Environment, inputs: Digests) -> None:
    """Write search.json. Raises OutputError."""
    more = {"environment": environment.to_document(), "inputs": inputs, "versions": {"qnas": __version__}}
    write_json(folder / PLAN, _FILE.sealed({**plan.to_document(), **more}))


def read_begun(folder: Path) -> Begun:
    """What search.json says. Raises UsageError when there is none, CheckpointError when it is damaged."""
    path = folder / PLAN
    if not path.is_file():
        raise UsageError(f"{folder} holds no search (no {PLAN}): leave --resume out to begin one")
    found = _FILE.read(path)
    try:
        space = from_document(found.space, str(path), found.space_name)
    except SpaceError as error:
        raise CheckpointError(f"{error}: {_FILE.advice}") from error
    plan = SearchPlan(space, recipe_from(found.recipe, f"{path}, recipe"), found.image)
    return Begun(plan, found.environment, found.inputs)


def read_plan(folder: Path) -> SearchPlan:
    """What search.json asks for. Raises UsageError when there is none, CheckpointError when it is damaged."""
    return read_begun(folder).plan
