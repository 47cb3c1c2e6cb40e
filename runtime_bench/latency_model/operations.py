"""What the operations of a search space cost, put together from the kernels that they become."""

from __future__ import annotations

from qnas.errors import ArchitectureError
from qnas.operations import operation_convolutions
from qnas.runtime_bench.latency_model.kernels import Kernel
from qnas.runtime_bench.latency_model.networks import BITS, OPERATIONS
from qnas.runtime_bench.latency_model.table import LatencyModel, OperationTime

PAD_TO = 4  # channels: as the exporter does for onnxruntime
DENSE = "group=1 strides=1,1"


def operation_times(model: LatencyModel) -> tuple[OperationTime, ...]:
    """Every operation at every width and size at which a convolution that keeps both was measured."""
    frames = sorted({
        (each.kernel.inputs[1][0], *each.kernel.output[1:3])
        for each in model.kernels
        if _keeps_width(each.kernel)
    })  # fmt: skip
    rows = []
    for channels, height, width in frames:
        for op in OPERATIONS:
            for bits in BITS:
                try:
                    ms = operation_ms(model, op, channels, channels, bits, (height, width))
                except ArchitectureError:
                    continue  # groups that do not divide these channels
                rows.append(OperationTime(op, channels, channels, bits, height, width, round(ms, 6)))
    return tuple(rows)


def _keeps_width(kernel: Kernel) -> bool:
    return (
        kernel.op == "QLinearConv"
        and kernel.convolution
        and kernel.attributes == DENSE
        and kernel.inputs[1][0] == kernel.inputs[1][1]
        and kernel.inputs[0][1:3] == kernel.output[1:3]
    )


def operation_ms(
    model: LatencyModel, op: str, in_channels: int, out_channels: int, bits: int, size: tuple[int, int]
) -> float:
    """Milliseconds of one operation: its convolutions, dense and padded, and a clip before each 4-bit one."""
    total = 0.0
    for conv in operation_convolutions(op, in_channels, out_channels):
        read, written = _padded(conv.in_channels), _padded(conv.out_channels)
        image = (1, *size, read)
        kernel = Kernel(
            "QLinearConv",
            ("uint8", "int8"),
            (image, (written, read, *conv.kernel)),
            (1, *size, written),
            DENSE,
        )
        total += model.time(kernel)[0] + model.node_ns
        if bits < 8:
            total += model.time(Kernel("Clip", ("uint8",), (image,), image))[0] + model.node_ns
    return max(total, 0.0) / 1e6


def _padded(channels: int) -> int:
    return -(-channels // PAD_TO) * PAD_TO
