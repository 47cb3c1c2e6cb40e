"""What bench and worker say to each other: one JSON object a line, each request answered by one reply.

| request | reply |
|---|---|
| `hello` | `protocol`, `qnas`, `python` |
| `has` `digest` | `there`: whether the files of that digest lie in the cache |
| `put` `digest` `name` `data` (base64) `last` | `{}`; pieces of one file in order |
| `kept` `digest` `name` `sha256` | `path` of the file in the cache, checked |
| `load` (`LoadRequest`) | `Loaded` |
| `run` `count` | `ns`: one number an inference |
| `executed` `runs` | `nodes`: ExecutedNode as objects, `provider`: what the device is called in them |
| `outputs` | `outputs`: name -> `dtype`, `shape`, `data` (base64), of the last run |
| `state` | machine_state.State as an object |
| `peak` `threads` | peak.Peak as an object |
| `listing` | `devices`: pairs of name and why it is not there |

A failure is answered by `error` and, where the call itself is wrong, `usage`: true.
"""

from dataclasses import dataclass

from qnas.runtime_bench.environment import Environment
from qnas.runtimes.inputs import Shape

PROTOCOL = 1


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
    input_types: dict[str, str]
    output_shapes: dict[str, Shape]
    load_ns: int
    first_ns: int
    peak_memory: int
