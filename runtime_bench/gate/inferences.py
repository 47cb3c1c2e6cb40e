"""A process that runs a model so many times and nothing else, for a tool that counts its instructions.

python -P -m qnas.runtime_bench.gate.inferences '{"model": ..., "device": "cpu", "options": {}, ...}'
"""

import sys
from pathlib import Path

import msgspec

from qnas.errors import QnasError
from qnas.runtimes.inputs import parse_shape, random_inputs, resolve_shapes
from qnas.runtimes.names import parse_device


class Task(msgspec.Struct, frozen=True):
    """Run a model so many times; `shapes` as on the command line."""

    model: str
    device: str
    options: dict[str, str]
    shapes: tuple[str, ...]
    seed: int
    count: int


def infer(task: str) -> None:
    """Load the model on its device with one thread and run it; may raise UsageError and ModelError."""
    wanted = msgspec.json.decode(task, type=Task)
    name = parse_device(wanted.device)
    model = name.device.load(name.argument, Path(wanted.model), 1, wanted.options)
    shapes = resolve_shapes(model.inputs, [parse_shape(text) for text in wanted.shapes])
    model.feed(random_inputs(model.inputs, shapes, wanted.seed))
    for _ in range(wanted.count):
        model.run()


if __name__ == "__main__":
    try:
        infer(sys.argv[1])
    except QnasError as error:
        sys.exit(f"error: {error}")
