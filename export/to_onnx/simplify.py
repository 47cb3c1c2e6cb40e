"""onnxsim, where it keeps what makes the graph integer."""

from collections import Counter
from importlib.util import find_spec

import onnx

KEPT = ("QuantizeLinear", "DequantizeLinear")


def simplify(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """(model, note). Requires a checked model; ensures that every QDQ node and 4-bit weight is still there.

    Where onnxsim drops one, or fails, the model comes back unchanged and the note says so.
    """
    if find_spec("onnxsim") is None:
        return model, "onnxsim skipped: it is not installed (pip install onnxsim)"
    import onnxsim

    before = _census(model)
    try:
        # Folding constants would turn the INT4 weights into INT8 ones.
        simplified, equal = onnxsim.simplify(model, skip_constant_folding=True)
    except Exception as error:  # onnxsim raises whatever its C++ side throws
        return model, f"onnxsim skipped: it failed with {type(error).__name__}"
    after = _census(simplified)
    if after != before or not equal:
        return model, f"onnxsim skipped: it would turn {_listing(before)} into {_listing(after)}"
    saved = len(model.graph.node) - len(simplified.graph.node)
    return simplified, f"onnxsim removed {saved} of {len(model.graph.node)} nodes and kept {_listing(after)}"


def _census(model: onnx.ModelProto) -> Counter[str]:
    counts = Counter(node.op_type for node in model.graph.node if node.op_type in KEPT)
    counts["INT4 weights"] = sum(t.data_type == onnx.TensorProto.INT4 for t in model.graph.initializer)
    return counts


def _listing(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in (*KEPT, "INT4 weights"))
