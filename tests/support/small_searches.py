"""Searches of a few steps: their options, and what they leave behind without what no two runs share."""

import json
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qnas.search.supernet.state import STATE_FORMAT, STATE_VERSION
from qnas.torch.run_state import load_run_state

TINY = [
    "--space", "basic-small", "--bits", "4,8", "--channels", "12", "--blocks", "1", "--epochs", "3",
    "--epoch-steps", "4", "--warm-up", "1", "--batch", "2", "--patch", "16", "--cache-mib", "8",
    "--threads", "1",
]  # fmt: skip
STEPS = 12
TIMES = ("seconds", "images_per_second")


def records(folder: Path) -> list[dict[str, Any]]:
    """The log."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def timeless(folder: Path) -> list[dict[str, Any]]:
    """The log without times."""
    return [{key: r[key] for key in r if key not in TIMES} for r in records(folder)]


def result(folder: Path) -> dict[str, Any]:
    """result.json without its time."""
    document = json.loads((folder / "result.json").read_text())
    return {key: document[key] for key in document if key != "seconds"}


def events(folder: Path) -> list[tuple[int, str, float]]:
    """(step, tag, value) of TensorBoard's files, in their order, without times."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):  # TFRecord: length, its checksum, the message, its checksum
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return [entry for entry in found if not entry[1].endswith("images_per_second")]


def state(folder: Path) -> dict[str, Any]:
    """The checkpoint without its time."""
    document = load_run_state(folder / "state.pt", STATE_FORMAT, STATE_VERSION, "qnas-search")
    return {key: document[key] for key in document if key != "seconds"}


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit of every tensor."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def assert_same_search(a: Path, b: Path) -> None:
    """Two folders hold the same search: but for times and the folder's name nothing differs."""
    assert same(state(a), state(b))
    assert timeless(a) == timeless(b)
    assert events(a) == events(b)
    assert (a / "arch.json").read_bytes() == (b / "arch.json").read_bytes()
    assert result(a) == result(b)
