"""Convolutions that only pick channels, and how they join those before them where that takes less."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qnas.integer.convolution import Conv, picked
from qnas.integer.network import IntegerNetwork, pruned, rewritten
from qnas.integer.nodes import Add, IntegerNode, Table

Rows = NDArray[np.int64]
Edits = dict[str, tuple[IntegerNode, ...]]  # name of a node -> what stands in its place


def joined_picks(network: IntegerNetwork, picks: Iterable[str]) -> IntegerNetwork:
    """`picks`: convolutions that `picked` made; some may be gone from the network. They join one by one."""
    names = set(picks)
    for name in picks:
        joining = _Joining(network.by_name(), network.readers(), names)
        if name in joining.named:
            network = pruned(joining.joined(network, name))
    return network


def _rows(pick: IntegerNode) -> Rows:
    """The channels that it picks: another may have joined it."""
    assert isinstance(pick, Conv)
    rows: Rows = pick.weight[:, :, 0, 0].argmax(1)
    return rows


@dataclass(frozen=True)
class _Joining:
    """The nodes of a network, who reads each, and the names of those that pick."""

    named: Mapping[str, IntegerNode]
    readers: Mapping[str, Sequence[IntegerNode]]
    picks: Collection[str]

    def joined(self, network: IntegerNetwork, name: str) -> IntegerNetwork:
        """`network` where pick `name` is part of what it reads, if that takes less."""
        source, rows = self.named[name].inputs[0], _rows(self.named[name])
        if len(self.readers[source]) > 1:
            edits = self.divided(name, rows)
            return rewritten(network, lambda node: edits.get(node.name, (node,)))
        edits = self.ordered(source, rows) if len(rows) <= self.named[source].channels else {}
        if not edits:
            return network

        def edited(node: IntegerNode) -> tuple[IntegerNode, ...]:
            new = edits.get(node.name, (node,)) if node.name != name else ()
            return tuple(
                replace(each, inputs=tuple(source if i == name else i for i in each.inputs)) for each in new
            )

        return rewritten(network, edited)

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
        shares = [reader.channels if reader.name in self.picks else 0 for reader in self.readers[source.name]]
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
