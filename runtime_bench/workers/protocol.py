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

from dataclasses import dataclass

from qnas.documents.reading import Count, Text
from qnas.runtime_bench.environment import Environment
from qnas.runtimes.executed import ExecutedNode

PROTOCOL = 1
Sizes = tuple[Count, ...]


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
    input_shapes: dict[str, Sizes]
    input_types: dict[str, Text]
    output_shapes: dict[str, Sizes]
    load_ns: Count
    first_ns: Count
    peak_memory: Count


@dataclass(frozen=True)
class Refusal:
    """What every reply may hold: why there is no other; `usage`: the call itself is wrong."""

    error: str = ""
    usage: bool = False


@dataclass(frozen=True)
class Hello:
    """The version of the protocol; the versions of packages beside it are for people."""

    protocol: int


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

    path: str


@dataclass(frozen=True)
class Times:
    """Nanoseconds, one number an inference."""

    ns: list[Count]


@dataclass(frozen=True)
class Executed:
    """What ran, and what the device is called in it."""

    nodes: tuple[ExecutedNode, ...]
    provider: Text


@dataclass(frozen=True)
class Output:
    """A tensor, whose bytes are base64 on the line."""

    dtype: Text
    shape: Sizes
    data: bytes


@dataclass(frozen=True)
class Outputs:
    """Tensors by name."""

    outputs: dict[str, Output]


@dataclass(frozen=True)
class Listing:
    """Devices: a name, and why it is not there or ""."""

    devices: tuple[tuple[Text, Text], ...]
