"""Convolutions that only pick channels, and how they join those before them where that takes less."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qnas.integer_network import Add, Conv, IntegerNetwork, IntegerNode, Table, pruned, rewritten

Rows = NDArray[np.int64]
Edits = dict[str, tuple[IntegerNode, ...]]  # name of a node -> what stands in its place


def picked(name: str, source: IntegerNode, rows: Rows) -> Conv:
    """The convolution whose output channel o is channel rows[o] of `source`: weight 1 of scale 1."""
    out, c = len(rows), source.channels
    weight = np.eye(c, dtype=np.int8)[rows].reshape(out, c, 1, 1)
    one, zero = np.ones(out, np.float32), np.zeros(out, np.int32)
    return Conv(name, (source.name,), out, source.output, weight, one, zero, bits=8)


def joined_picks(network: IntegerNetwork, picks: Mapping[str, Rows]) -> IntegerNetwork:
    """`picks`: which channels the convolutions of these names pick; some may be gone from the network."""
    joining = _Joining(network, picks)
    edits: Edits = {}
    gone: dict[str, str] = {}
    for name, rows in picks.items():
        if name not in joining.named:
            continue
        source = joining.named[name].inputs[0]
        if len(joining.readers[source]) > 1:
            edits |= joining.divided(name, rows)
        elif len(rows) <= joining.named[source].channels and (found := joining.ordered(source, rows)):
            edits |= found | {name: ()}
            gone[name] = source
    edited = rewritten(network, lambda node: edits.get(node.name, (node,)))
    return pruned(
        rewritten(edited, lambda n: (replace(n, inputs=tuple(gone.get(name, name) for name in n.inputs)),))
    )


@dataclass
class _Joining:
    network: IntegerNetwork
    picks: Mapping[str, Rows]

    def __post_init__(self) -> None:
        self.named, self.readers = self.network.by_name(), self.network.readers()

    def ordered(self, name: str, rows: Rows) -> Edits:
        """What makes node `name` write channel rows[o] as its channel o; nothing where that takes as much.

        Case 1: a convolution. Case 2: a table of one. Case 3: a sum: of what is no convolution, channels are
        picked before.
        """
        node, alone = self.named[name], len(self.readers[name]) == 1
        if isinstance(node, Conv) and alone and node.groups == 1:  # Case 1
            return {name: (_with_rows(node, rows, name),)}
        if isinstance(node, Table) and alone:  # Case 2
            edits = self.ordered(node.inputs[0], rows)
            return edits and edits | {name: (replace(node, channels=len(rows)),)}
        if not isinstance(node, Add) or not alone or len(set(node.inputs)) < 2:
            return {}
        parts = {source: self.ordered(source, rows) for source in node.inputs}  # Case 3
        fixed = [
            picked(f"{source}.picked", self.named[source], rows) for source in parts if not parts[source]
        ]
        if len(fixed) == len(parts):
            return {}
        instead = {conv.inputs[0]: conv.name for conv in fixed}
        inputs = tuple(instead.get(source, source) for source in node.inputs)
        conv_edits = {key: new for edits in parts.values() for key, new in edits.items()}
        return conv_edits | {name: (*fixed, replace(node, inputs=inputs, channels=len(rows)))}

    def divided(self, name: str, rows: Rows) -> Edits:
        """Pick `name`, one of several that share out a convolution or a table of one, as one of its own."""
        source = self.named[self.named[name].inputs[0]]
        shares = [len(self.picks.get(reader.name, ())) for reader in self.readers[source.name]]
        conv = self.named[source.inputs[0]] if isinstance(source, Table) else source
        if 0 in shares or sum(shares) > source.channels or not isinstance(conv, Conv) or conv.groups > 1:
            return {}
        if conv is source:
            return {name: (_with_rows(conv, rows, name),)}
        own = _with_rows(conv, rows, f"{name}.conv")
        return {name: (own, replace(source, name=name, inputs=(own.name,), channels=len(rows)))}


def _with_rows(conv: Conv, rows: Rows, name: str) -> Conv:
    """`conv` as `name`, whose channel o is its channel rows[o]."""
    weight, scale, bias = conv.weight[rows], conv.weight_scale[rows], conv.bias[rows]
    return replace(conv, name=name, channels=len(rows), weight=weight, weight_scale=scale, bias=bias)
