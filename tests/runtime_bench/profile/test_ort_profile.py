"""onnxruntime's profiler as ours: what ran, how much it multiplied, and where."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from qnas.errors import ModelError
from qnas.onnx.cost import model_cost
from qnas.runtime_bench.latency_model.networks import random_member, untrained_model
from qnas.runtime_bench.profile.delegation import delegation
from qnas.runtimes.executed import ExecutedNode, ExecutedTensor
from qnas.runtimes.onnxruntime import execute, multiplications
from qnas.testing.text_models import FLOAT_CONV, INTEGER_CONV, text_model

IMAGE = np.zeros((1, 3, 16, 20), np.uint8)
CPU = "CPUExecutionProvider"


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def test_integer_convolution_is_one_node_with_the_macs_of_a_hand_count(tmp_path: Path) -> None:
    nodes = execute(saved(tmp_path, text_model(INTEGER_CONV)), {"image": IMAGE}, runs=4, warmup=1).nodes
    (conv,) = [node for node in nodes if node.op == "QLinearConv"]
    assert conv.macs == 16 * 20 * 12 * 27
    assert conv.integer is True
    assert conv.provider == CPU
    assert len(conv.nanoseconds) == 4
    assert all(time > 0 and time % 1000 == 0 for time in conv.nanoseconds)


def test_weights_that_the_kernel_packed_away_are_among_its_inputs(tmp_path: Path) -> None:
    nodes = execute(saved(tmp_path, text_model(INTEGER_CONV)), {"image": IMAGE}, runs=1).nodes
    (conv,) = [node for node in nodes if node.op == "QLinearConv"]
    assert conv.inputs[0].dtype == "uint8"
    assert conv.inputs[3] == ExecutedTensor("int8", (12, 3, 3, 3))
    assert [tensor.dtype for tensor in conv.inputs[1:3]] == ["float32", "uint8"]


def test_float_convolution_multiplies_floats(tmp_path: Path) -> None:
    image = IMAGE.astype(np.float32)
    nodes = execute(saved(tmp_path, text_model(FLOAT_CONV)), {"image": image}, runs=1).nodes
    assert [node.integer for node in nodes if node.macs] == [False]
    assert {node.integer for node in nodes if not node.macs} <= {None}


def test_executed_macs_are_those_of_the_graph_where_nothing_is_resized(tmp_path: Path) -> None:
    path = saved(tmp_path, untrained_model(random_member("basic", 3), 3))
    executed = execute(path, {"image": IMAGE}, runs=1)
    assert sum(node.macs for node in executed.nodes) == model_cost(path, {"image": IMAGE.shape}).macs
    assert executed.graph is not None
    assert len(executed.runs) == 1


def test_profile_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, text_model(INTEGER_CONV))
    monkeypatch.chdir(tmp_path)
    execute(path, {"image": IMAGE}, runs=1)
    assert list(tmp_path.iterdir()) == [path]


def test_model_that_does_not_run_on_the_inputs_is_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path, text_model(INTEGER_CONV))
    with pytest.raises(ModelError, match=r"model\.onnx cannot run on these inputs"):
        execute(path, {"image": np.zeros((1, 4, 8, 8), np.uint8)}, runs=1)


def tensor(*shape: int, dtype: str = "float32") -> ExecutedTensor:
    return ExecutedTensor(dtype, shape)


@pytest.mark.parametrize(
    ("op", "inputs", "output", "transposed", "expected"),
    [
        ("MatMul", [tensor(2, 5, 7), tensor(7, 3)], tensor(2, 5, 3), False, (2 * 5 * 3 * 7, False)),
        ("Gemm", [tensor(7, 5), tensor(7, 3)], tensor(5, 3), True, (5 * 3 * 7, False)),
        (
            "MatMulInteger",
            [tensor(5, 7, dtype="uint8"), tensor(7, 3, dtype="int8")],
            tensor(5, 3, dtype="int32"),
            False,
            (5 * 3 * 7, True),
        ),
        ("ConvTranspose", [tensor(1, 4, 6, 6), tensor(4, 2, 3, 3)], tensor(1, 2, 8, 8), False, (2592, False)),
        ("Add", [tensor(2, 2), tensor(2, 2)], tensor(2, 2), False, (0, None)),
        ("QLinearConv", [tensor(1, 3, 8, 8, dtype="uint8")], tensor(1, 3, 8, 8), False, (0, None)),
    ],
)
def test_multiplications_equal_a_hand_count(
    op: str,
    inputs: list[ExecutedTensor],
    output: ExecutedTensor,
    transposed: bool,
    expected: tuple[int, bool | None],
) -> None:
    assert multiplications(op, inputs, [output], transposed) == expected


def node(provider: str, macs: int, integer: bool | None = None) -> ExecutedNode:
    return ExecutedNode("n", "Op", provider, (), (), macs, integer, ())


def test_shares_of_a_provider_that_shows_its_nodes() -> None:
    facts = delegation(
        [node("A", 60, True), node("A", 20, False), node("B", 20, True), node("B", 0)], "A", 999
    )
    assert (facts.nodes, facts.delegated_nodes, facts.macs, facts.delegated_macs) == (4, 2, 100, 80)
    assert (facts.mac_share, facts.node_share, facts.integer_share) == (0.8, 0.5, 0.8)
    assert facts.unknown_macs == 0


def test_compiling_provider_gets_what_nobody_else_multiplied() -> None:
    facts = delegation([node("Fused", 0), node(CPU, 30, True)], "Fused", 100)
    assert (facts.delegated_macs, facts.unknown_macs, facts.mac_share) == (70, 70, 0.7)
    assert facts.integer_share == 0.3


def test_provider_that_ran_nothing_got_nothing() -> None:
    facts = delegation([node(CPU, 100, True)], "XnnpackExecutionProvider", 100)
    assert (facts.delegated_nodes, facts.mac_share, facts.integer_share) == (0, 0.0, 1.0)
