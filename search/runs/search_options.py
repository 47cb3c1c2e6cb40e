"""The plan of a search out of the options of `qnas-search run`."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from qnas.errors import UsageError
from qnas.quantization.quantizers import FLOAT_BITS
from qnas.search.runs.run_folder import SearchPlan
from qnas.search.space.search_space import find_space
from qnas.search.space.space_options import changed_space, parse_image
from qnas.search.supernet.recipe import SearchRecipe

FLOAT_ENTROPY = 1e-3  # mu0 of the paper's searches in full precision; quantized ones have 1e-4


def search_plan(options: Mapping[str, Any], base: SearchPlan | None = None) -> SearchPlan:
    """The plan that `options` describe, what they leave out as in `base`.

    Keys are the names of recipe fields, and `space`, `bits`, `channels`, `blocks`, `normalization`,
    `operations`, `image` and `mixing` as the options have them. Raises UsageError, SpaceError,
    ArchitectureError.
    """
    if "space" in options:
        space = find_space(options["space"])
    elif base:
        space = base.space
    else:
        raise UsageError("no search space: pass --space basic, or another that `qnas-search spaces` lists")
    space = changed_space(space, options)
    names = [field.name for field in fields(SearchRecipe)]
    values = {name: options[name] for name in names if name in options}
    if "data" in values:
        values["data"] = tuple(map(str, values["data"]))
    if "latency_table" in values:
        values["latency_table"] = str(values["latency_table"])
    if "mixing" in options:
        values["merged"] = options["mixing"] == "merged"
    if base:
        recipe = replace(base.recipe, **values)
    else:
        if space.bits == (FLOAT_BITS,):
            values.setdefault("entropy", FLOAT_ENTROPY)
        recipe = SearchRecipe(**{"data": (), **values})
    image = parse_image(options["image"]) if "image" in options else base.image if base else (32, 32)
    return SearchPlan(space, recipe, image)
