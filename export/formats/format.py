"""What a format has to tell: how it is written, and what its files say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from qnas.errors import UsageError
from qnas.files import read_input

if TYPE_CHECKING:
    from qnas.cost.file_cost import FileCost
    from qnas.export.inspection.inspection import Inspection, Request
    from qnas.export.options import Options
    from qnas.export.sources.source import Source
    from qnas.export.targets import Target
    from qnas.integer.network import IntegerNetwork
    from qnas.onnx.fusion import FusionReport
    from qnas.runtimes.inputs import Input


@dataclass(frozen=True)
class FileKind:
    """Files that end in `suffix`. All raise ModelError for a damaged file.

    `inputs`: what it declares, with the sizes that it leaves free. `cost(path, shapes)`: of one run at shapes
    by input name. `properties`: the `qnas.*` metadata. `inspect`: a row for every layer. `companions`: other
    files that belong to it, after a look at all that a runtime would open. `whole`: its bytes, with what lies
    in these files. `fusion(path, threads)`: its convolutions as onnxruntime runs them, None where
    another runtime does.
    """

    suffix: str
    inputs: Callable[[Path], tuple[Input, ...]]
    cost: Callable[[Path, Mapping[str, Sequence[int]] | None], FileCost]
    properties: Callable[[Path], dict[str, str]]
    inspect: Callable[[Path, Request], Inspection]
    companions: Callable[[Path], list[Path]] = lambda path: []
    whole: Callable[[Path], bytes] = read_input
    fusion: Callable[[Path, int], FusionReport | None] = lambda path, threads: None


@dataclass(frozen=True)
class Written:
    """The bytes of a file. `network` is what its writer walked, after the passes of its target.

    `inexact`: ids of runtimes whose arithmetic is exact for other files, and rounds this one differently.
    """

    data: bytes
    notes: tuple[str, ...]
    network: IntegerNetwork | None = None
    inexact: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Format:
    """What `qnas-export --format NAME` writes: files that end in `suffix`.

    `targets`: the runtimes it is written for, the first by default. `alone`: it is another network than the
    integers, so that no other format is written beside it.
    """

    name: str
    suffix: str
    write: Callable[[Source, Options], Written]
    targets: tuple[Target, ...] = ()
    alone: bool = False

    def target(self, name: str | None) -> Target:
        """Return the target of that name, the first without one. Raises UsageError where it is not for it."""
        fitting = {target.name: target for target in self.targets}
        if name is None:
            return self.targets[0]
        if name not in fitting:
            raise UsageError(f"--target {name} takes no {self.name}: use one of {', '.join(fitting)}")
        return fitting[name]
