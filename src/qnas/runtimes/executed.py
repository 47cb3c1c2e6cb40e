"""What a runtime really executed: one row a node, as its own profiler tells."""

from dataclasses import dataclass

from qnas.documents.reading import Count, Shape, Text


@dataclass(frozen=True)
class ExecutedTensor:
    """`dtype` by numpy's name ("uint8"), "" where the profiler is silent."""

    dtype: Text
    shape: Shape


@dataclass(frozen=True)
class ExecutedNode:
    """One node of the graph that ran, in the runtime's own words.

    `provider`: what ran it ("CPUExecutionProvider", "XNNPACK"). `nanoseconds`: one entry a profiled run,
    empty where the runtime tells only what ran. `integer`: whether it multiplies integers, None when it
    multiplies nothing or nobody knows. `macs`: multiply-adds of one run.
    """

    name: Text
    op: Text
    provider: Text
    inputs: tuple[ExecutedTensor, ...]
    outputs: tuple[ExecutedTensor, ...]
    macs: Count
    integer: bool | None
    nanoseconds: tuple[Count, ...]
