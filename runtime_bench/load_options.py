"""The options of every command that loads models on devices: named as the fields of `LoadOptions`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def _device_option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE")
    return key, value


def _processors(text: str) -> tuple[int, ...]:
    if not all(part.isdecimal() for part in text.split(",")):
        raise click.BadParameter(f"{text!r} is no list of processors such as 0,1")
    return tuple(map(int, text.split(",")))


# fmt: off
OPTIONS = (
    click.option("--device-option", "device_options", type=_device_option, multiple=True, metavar="KEY=VALUE",
                 help="Of the execution provider, delegate or plugin; repeatable."),
    click.option("--adb-binary", type=click.Path(path_type=Path),
                 help="LiteRT's benchmark_model or onnxruntime_perf_test, for adb."),
    click.option("--remote-python", default="python3", show_default=True,
                 help="Python with qnas behind ssh."),
    click.option("--shape", "shapes", multiple=True,
                 help="Shape of an input: 1x3x128x128, 128x128 (height x width) or name:1x3x64x64; "
                 "repeatable. Free dimensions default to 1x3x128x128."),
    click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads."),
    click.option("--cpus", type=_processors, callback=lambda context, option, value: value or (),
                 metavar="0,1,...", help="Only on these processors."),
    click.option("--timeout", "patience", type=click.FloatRange(min=1), default=300, show_default=True,
                 help="Seconds that a device may take to answer."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all chance."),
)
# fmt: on


def load_options(function: Function) -> Function:
    """Give them, in this order, to the function of a command: their values are `LoadOptions(**values)`."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function
