"""The options of `qnas-search sweep` in the shape of its TOML file."""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from qnas.search.sweep.plan import SweepPlan, plan_from, read_tables

SWEEP = ("methods", "architectures", "samples", "max_bitops", "min_bitops", "image", "train_warm_start")
GRID = ("space", "bits", "penalty")
SEARCH = {"search_epochs": "epochs", "epoch_steps": "epoch-steps"}
TRAIN = {"train_steps": "steps"}


def plan_of_flags(options: Mapping[str, Any], resume: bool) -> SweepPlan | None:
    """The plan of --config with the other options over it; None where a resumed sweep gets no settings.

    Raises UsageError.
    """
    given = {key: value for key, value in options.items() if value not in (None, (), False)}
    if resume and not given:
        return None
    config = given.get("config")
    tables = {} if config is None else read_tables(config)
    _put(tables, "sweep", {key.replace("_", "-"): _plain(given[key]) for key in SWEEP if key in given})
    _put(tables, "grid", {key: list(given[key]) for key in GRID if key in given})
    if "seeds" in given:
        _put(tables, "grid", {"seed": list(range(given["seeds"]))})
    data = {"data": _plain(given["data"])} if "data" in given else {}
    search = {name: given[key] for key, name in SEARCH.items() if key in given}
    _put(tables, "search", {**data, **search, **_pairs(given.get("search", ()))})
    train = {name: given[key] for key, name in TRAIN.items() if key in given}
    if "validate" in given:
        train["validate"] = str(given["validate"])
    _put(tables, "train", {**train, **_pairs(given.get("train", ()))})
    return plan_from(tables, "the sweep" if config is None else str(config))


def _put(tables: dict[str, Any], name: str, values: Mapping[str, Any]) -> None:
    """What is no table is left for `plan_from` to refuse."""
    table = tables.setdefault(name, {})
    if isinstance(table, dict):
        table.update(values)


def _pairs(pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """KEY=VALUE as TOML would have it; a key given twice is a list."""
    found: dict[str, Any] = {}
    for key, text in pairs:
        value = _value(text)
        if key in found:
            value = [*(found[key] if isinstance(found[key], list) else [found[key]]), value]
        found[key] = value
    return found


def _value(text: str) -> Any:
    """A number or a truth value where it reads like one."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        with suppress(ValueError):
            if math.isfinite(value := kind(text)):
                return value
    return text


def _plain(value: Any) -> Any:
    return [str(each) for each in value] if isinstance(value, tuple) else value
