"""Options of `qnas-search run` and `qnas-train` as data, checked by the commands themselves."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import click

from qnas.errors import UsageError

Command = Literal["run", "train"]
NAMES: dict[Command, str] = {"run": "qnas-search run", "train": "qnas-train"}
# What the sweep decides itself, for every member and stage of its own.
OWN: dict[Command, tuple[str, ...]] = {
    "run": ("output", "resume", "force", "threads", "operations", "image"),
    "train": (
        "output", "resume", "force", "threads", "bits", "warm-start", "show", "seed", "activation-steps",
    ),
}  # fmt: skip


def module(command: Command) -> str:
    """The module whose `main` the command is."""
    return f"qnas.search.{command}_cli"


def check_names(command: Command, options: Mapping[str, Any], where: str) -> None:
    """Every key must be an option of the command that a sweep leaves open. Raises UsageError."""
    known, name = _parameters(command), NAMES[command]
    for key in options:
        if key in OWN[command]:
            raise UsageError(f"{where}: {key} is set by the sweep itself: leave it out")
        if key not in known:
            raise UsageError(f"{where}: {name} has no option {key[:40]!r}: see {name} --help")


def absolute(command: Command, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with absolute paths: a sweep may be resumed from another folder."""
    known = _parameters(command)
    paths = {key for key in options if isinstance(known[key].type, click.Path)}
    return {key: _absolute(value) if key in paths else value for key, value in options.items()}


def arguments(command: Command, options: Mapping[str, Any]) -> list[str]:
    """The options as a command line has them. Raises UsageError."""
    return [part for key, value in options.items() for part in _parts(command, key, value)]


def parsed(command: Command, line: list[str]) -> dict[str, Any]:
    """What the command reads in the line. Raises UsageError, where the command would end the program."""
    main, name = _main(command), NAMES[command]
    with click.Context(main, info_name=name, **main.context_settings) as context:
        try:
            click.Command.parse_args(main, context, list(line))
        except click.UsageError as error:
            raise UsageError(f"{error.format_message().rstrip('.')}: see {name} --help") from error
        return context.params


def _parts(command: Command, key: str, value: Any) -> Iterator[str]:
    parameter, option = _parameters(command)[key], f"{NAMES[command]} --{key}"
    if parameter.is_flag:
        if value is not True and value is not False:
            raise UsageError(f"{option} is true or false, not {str(value)[:40]!r}")
        yield from [f"--{key}"] * value
        return
    values = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(each, bool) or not isinstance(each, str | int | float) for each in values):
        raise UsageError(f"{option} takes texts or numbers, not {str(value)[:40]!r}: see its --help")
    if len(values) != parameter.nargs and not parameter.multiple:
        raise UsageError(f"{option} takes {parameter.nargs} value(s), not {len(values)}: see its --help")
    if parameter.nargs > 1:
        yield from (f"--{key}", *map(str, values))
        return
    yield from (f"--{key}={each}" for each in values)


def _absolute(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_absolute(each) for each in value]
    return str(Path(value).absolute()) if isinstance(value, str | Path) else value


def _main(command: Command) -> click.Command:
    main: click.Command = import_module(module(command)).main
    return main


def _parameters(command: Command) -> dict[str, click.Option]:
    options = (each for each in _main(command).params if isinstance(each, click.Option))
    return {name.removeprefix("--"): each for each in options for name in each.opts if name.startswith("--")}
