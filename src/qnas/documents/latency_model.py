"""`qnas-latency-model`: measured kernels of one machine, and what they make of the operations of a search.

    {"format": "qnas-latency-model", "version": 1,
     "device": "cpu", "threads": 1, "environment": {...},       # where it was measured
     "node_ns": -1900.0, "run_ns": 25000.0,                     # time of a run besides its kernels
     "accuracy": {"networks", "mape", "within_5", "within_10", "spearman"} or null,
     "kernels": [{"op", "types", "inputs", "output", "attributes", "ns", "samples"}, ...],
     "operations": [{"op", "in_channels", "out_channels", "bits", "height", "width", "scale", "ms"}, ...]}

`qnas-bench fit` and `qnas-bench operations` write it, `qnas-bench predict` reads it, and a search reads its
`operations`, from a file that any program may write: other keys of it are not looked at then.
"""

from typing import Annotated, Any

from msgspec import Meta

from qnas.documents.reading import Closed, Count, Document, Number, Size
from qnas.errors import ModelError

FORMAT, VERSION = "qnas-latency-model", 1
ADVICE = "name a file of `qnas-bench fit`, or write it again with that"
Time = Annotated[float, Meta(ge=0, le=1e24)]
Extents = tuple[Annotated[int, Meta(ge=1, le=2**40)], ...]


class OperationTime(Closed, frozen=True):
    """Milliseconds that an operation of a search space adds to a network: convolutions and clips in front.

    `height` and `width` are its result's, `scale` is how many times those are the image's.
    """

    op: str
    in_channels: Size
    out_channels: Size
    bits: Size
    height: Size
    width: Size
    ms: Time
    scale: Size = 1


class OperationTable(Closed, frozen=True, forbid_unknown_fields=False):
    """What a search reads of the file."""

    operations: tuple[OperationTime, ...]


class KernelRow(Closed, frozen=True):
    """A node that the runtime ran, as `runtime_bench.latency_model.kernels` has it.

    `ns`: the median over `samples` networks and rounds.
    """

    op: str
    types: tuple[str, ...]
    inputs: tuple[Extents, ...]
    output: Extents
    attributes: str
    ns: Time
    samples: Count

    def __post_init__(self) -> None:
        if len(self.types) != len(self.inputs):
            raise ValueError(f"{len(self.inputs)} inputs and {len(self.types)} types")


class Accuracy(Closed, frozen=True):
    """On networks that the fit had not seen: mean absolute relative error, shares, rank correlation."""

    networks: Count
    mape: Number
    within_5: Number
    within_10: Number
    spearman: Number


class LatencyDocument(Closed, frozen=True):
    """The whole file; `environment` is that of `qnas.runtime_bench.environment`."""

    device: str
    threads: Count
    environment: dict[str, Any]
    node_ns: Number
    run_ns: Number
    accuracy: Accuracy | None
    kernels: tuple[KernelRow, ...]
    operations: tuple[OperationTime, ...]


OPERATIONS = Document(OperationTable, "latency model", ADVICE, format=FORMAT, version=VERSION)
LATENCY_MODEL = Document(LatencyDocument, "latency model", ADVICE, ModelError, FORMAT, VERSION)
