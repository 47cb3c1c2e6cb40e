"""`arch.json` and `result.json`: what a search, of whatever method, leaves in its folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qnas.cost.network_cost import NetworkCost, network_cost
from qnas.documents.reading import Count, Document, Number, Text
from qnas.errors import OutputError
from qnas.files import write_file
from qnas.network.architecture import Architecture
from qnas.network.lowering import lower
from qnas.one_writer import HIDDEN

WRITE_AGAIN = "let qnas-search write it again"


@dataclass(frozen=True)
class Reached:
    """A target, and the cost of the likeliest architecture of all, in the unit of the cost.

    `excess`: of the architecture that was taken, as a share of the target.
    """

    target: Number
    excess: Number
    likeliest: Number


@dataclass(frozen=True)
class Result:
    """What a search ended with; MACs and BitOps for its image, (height, width) as in the paper's tables."""

    space_name: Text
    method: Text
    macs: Number
    bitops: Number
    image: tuple[Count, Count] = (32, 32)
    seconds: Number | None = None
    reached: Reached | None = None


RESULT_FILE = Document(Result, "record of a search", WRITE_AGAIN, format="qnas-search-result", version=1)


def write_result(
    folder: Path, architecture: Architecture, *, space_name: str, method: str, image: tuple[int, int],
    cost: str = "bitops", certainty: Mapping[str, float] | None = None, seconds: float = 0.0, steps: int = 0,
    reached: Reached | None = None,
) -> None:  # fmt: skip
    """Write both files, result.json last: where it is, the search has ended. Raises OutputError.

    `image`: (height, width) in pixels, for which MACs and BitOps are counted; `certainty`: of each variable.
    """
    counted = image_cost(architecture, image)
    result = {
        **RESULT_FILE.head,
        "space_name": space_name,
        "method": method,
        "cost": cost,
        "image": list(image),
        "macs": counted.macs,
        "bitops": counted.bitops,
        "certainty": dict(certainty or {}),
        "seconds": round(seconds, 1),
        "steps": steps,
        **({"reached": asdict(reached)} if reached else {}),
    }
    write_file(folder / "arch.json", architecture.to_json(), force=True)
    write_json(folder / "result.json", result)


def image_cost(architecture: Architecture, image: tuple[int, int]) -> NetworkCost:
    """What the network costs for one image of (height, width) pixels."""
    return network_cost(lower(architecture), *image)


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}, choose another") from error


def check_folder(folder: Path, force: bool = False) -> None:
    """Refuse a folder to write that is a file, or holds something and not `force`. Raises OutputError."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file: name a folder")
    if not force and folder.is_dir() and not all(each.name.startswith(HIDDEN) for each in folder.iterdir()):
        raise OutputError(f"{folder} is not empty: pass --force to write into it, or name another folder")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Replace `path`, whole or not at all. Raises OutputError."""
    write_file(path, json.dumps(document, indent=1) + "\n", force=True)
