"""How much of a model ran where it was asked to, and how much of that in integers: counted, never assumed."""

from collections.abc import Sequence
from dataclasses import dataclass

from qnas.documents.reading import Count, Text
from qnas.runtimes.executed import ExecutedNode


@dataclass(frozen=True)
class Delegation:
    """`delegated_*` ran on the requested provider. `integer_macs` are those seen to multiply integers.

    A provider that compiles shows one node for many and says nothing of their arithmetic: `unknown_macs`.
    """

    provider: Text
    nodes: Count
    delegated_nodes: Count
    macs: Count
    delegated_macs: Count
    integer_macs: Count
    unknown_macs: Count

    @property
    def node_share(self) -> float:
        """The delegated share of the executed nodes; 1 where nothing ran."""
        return self.delegated_nodes / self.nodes if self.nodes else 1.0

    @property
    def mac_share(self) -> float:
        """The delegated share of the multiply-adds; that of the nodes in a model without any."""
        return self.delegated_macs / self.macs if self.macs else self.node_share

    @property
    def integer_share(self) -> float:
        """Multiply-adds seen to be integer, of all; 1 in a model without any."""
        return self.integer_macs / self.macs if self.macs else 1.0


def delegation(executed: Sequence[ExecutedNode], requested_provider: str, total: int) -> Delegation:
    """The facts of one run; `total` is the model's MACs by its own graph.

    Case 1: the provider's nodes show what they multiply. All MACs are those that were seen.
    Case 2: it compiled them. Theirs are what is left of `total` when those seen elsewhere are taken away.
    """
    own = [node for node in executed if node.provider == requested_provider]
    own_macs = sum(node.macs for node in own)
    others = sum(node.macs for node in executed) - own_macs
    unknown = 0
    if own and not own_macs:  # Case 2
        unknown = own_macs = max(total - others, 0)
    return Delegation(
        provider=requested_provider,
        nodes=len(executed),
        delegated_nodes=len(own),
        macs=own_macs + others,
        delegated_macs=own_macs,
        integer_macs=sum(node.macs for node in executed if node.integer),
        unknown_macs=unknown,
    )
