"""The trunks of a network: sums that read each other's results, from the first skip to the last.

Sums in bytes round what the trunk carries again and again, on grids that fit each other. With the sums of a
trunk in float nothing is rounded in it: the integer layers beside it round what they read and what they add,
each on a grid of its own.
"""

from qnas.calibration.ptq.grids import Sets
from qnas.calibration.ptq.integer_model import Plan


def trunks(plan: Plan) -> tuple[tuple[str, ...], ...]:
    """The sums of two tensors that compute in integers: the names of each trunk, the longest trunk first.

    Sums belong together where one reads what the other wrote, or both read a tensor; as it is, moved or
    bounded.
    """
    graph, tensors = plan.graph, Sets()
    sums = []
    for node in graph.nodes:
        is_sum = node.op_type == "Add" and len(graph.data(node)) == 2 and node.name in plan.integer
        if is_sum:
            sums.append(node)
        if is_sum or (graph.data(node) and graph.moves(node)):
            for name in graph.data(node):
                tensors.join(node.output[0], name)
    found: dict[str, list[str]] = {}
    for node in sums:
        found.setdefault(tensors.of(node.output[0]), []).append(node.name)
    return tuple(sorted(map(tuple, found.values()), key=len, reverse=True))
