"""What bench and worker say to each other: one JSON object a line, each request answered by one reply.

| request | reply |
|---|---|
| `hello` | `Hello` |
| `has` `digest` | `Has` |
| `put` `digest` `name` `data` (base64) `last` | `Done`; pieces of one file in order |
| `kept` `digest` `name` `sha256` | `Kept` |
| `load` (`LoadRequest`) | `Loaded` |
| `run` `count` | `Times` |
| `executed` `runs` | `Executed` |
| `outputs` | `Outputs`, of the last run |
| `state` | `machine_state.State` |
| `peak` `threads` | `peak.Peak` |
| `listing` | `Listing` |

A failure is answered by a `Refusal`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qnas.documents.reading import Count, Nanoseconds, Shape, Text
from qnas.errors import ModelError
from qnas.runtime_bench.environment import Environment
from qnas.runtimes.executed import ExecutedNode

PROTOCOL = 1
CLOCKS = 1.1  # how much faster the clock of another machine may be
NumberType = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
    "float64",
]  # fmt: skip


@dataclass(frozen=True)
class LoadRequest:
    """`shapes` as on the command line; `cpus`: the only ones that the process may use, empty: all."""

    model: str
    device: str
    options: dict[str, str]
    threads: int
    shapes: tuple[str, ...]
    seed: int
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class Loaded:
    """A model that ran once. `peak_memory`: bytes of the whole process then, 0: unknown."""

    environment: Environment
    input_shapes: dict[str, Shape]
    input_types: dict[str, Text]
    output_shapes: dict[str, Shape]
    load_ns: Count
    first_ns: Count
    peak_memory: Count

    def __post_init__(self) -> None:
        if self.input_types.keys() != self.input_shapes.keys():
            raise ValueError("input_types has other names than input_shapes")


@dataclass(frozen=True)
class Refusal:
    """What every reply may hold: why there is no other; `usage`: the call itself is wrong."""

    error: str = ""
    usage: bool = False


@dataclass(frozen=True)
class Hello:
    """The version of the protocol; the versions of packages beside it are for people."""

    protocol: Count


@dataclass(frozen=True)
class Done:
    """It was done, there is nothing to say."""


@dataclass(frozen=True)
class Has:
    """Whether the files of that digest lie in the cache."""

    there: bool


@dataclass(frozen=True)
class Kept:
    """The path of the file in the cache, which was checked."""

    path: Text


@dataclass(frozen=True)
class Times:
    """Nanoseconds, one number an inference."""

    ns: list[Nanoseconds]


@dataclass(frozen=True)
class Executed:
    """What ran, and what the device is called in it."""

    nodes: tuple[ExecutedNode, ...]
    provider: Text


@dataclass(frozen=True)
class Output:
    """A tensor, whose bytes are base64 on the line."""

    dtype: NumberType
    shape: Shape
    data: bytes


@dataclass(frozen=True)
class Outputs:
    """Tensors by name."""

    outputs: dict[str, Output]


@dataclass(frozen=True)
class Listing:
    """Devices: a name, and why it is not there or ""."""

    devices: tuple[tuple[Text, Text], ...]


def check_times(times: Sequence[int], count: int, elapsed: int, name: str) -> None:
    """Refuse other than `count` times, and more nanoseconds than went by here. Raises ModelError."""
    if len(times) != count:
        raise ModelError(
            f"{name} told the times of {len(times)} inferences, not {count}: is it the same qnas?"
        )
    if sum(times) > CLOCKS * elapsed:
        raise ModelError(
            f"{name} told {sum(times) / 1e9:.3g} s of inferences, but answered within {elapsed / 1e9:.3g} s: "
            "check its clock"
        )
