"""Profiles of OpenVINO and LiteRT, the peak that they are held against, and the tables of both."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.table import Table

from qnas.errors import ModelError
from qnas.export.to_tflite.writer import write_tflite
from qnas.onnx.cost import model_cost
from qnas.runtime_bench.profile import roofline
from qnas.runtime_bench.profile.peak import Peak
from qnas.runtime_bench.profile.roofline import machine_peak
from qnas.runtime_bench.profile.table import node_table, operation_table, peak_line, profile
from qnas.runtimes import litert, openvino
from qnas.runtimes.executed import ExecutedNode, ExecutedTensor
from qnas.runtimes.inputs import Feed
from qnas.runtimes.litert import open_interpreter
from qnas.terminal import Terminal
from qnas.testing.small_networks import conv, grid, image, network
from qnas.testing.text_models import FLOAT_CONV, INTEGER_CONV, text_model

PEAK = Peak(integer_gops=800, float_gflops=100, gigabytes=20, threads=1, runtime="onnxruntime 1")
GROUPED = """
net (float[n, 4, h, w] image) => (float[n, 6, y, x] out) <float[6, 2, 3, 3] k>
{ out = Conv <group = 2, pads = [1, 1, 1, 1]> (image, k) }"""
TRANSPOSED = """
net (float[n, 4, h, w] image) => (float[n, 5, y, x] out) <float[4, 5, 2, 2] k>
{ out = ConvTranspose <strides = [2, 2]> (image, k) }"""
PRODUCT = """
net (float[n, 5, 7] image) => (float[n, 5, 3] out) <float[7, 3] k>
{ out = MatMul (image, k) }"""


def saved(folder: Path, text: str) -> Path:
    path = folder / "model.onnx"
    onnx.save(text_model(text), path)
    return path


def macs(nodes: tuple[ExecutedNode, ...]) -> int:
    return sum(node.macs for node in nodes)


@pytest.mark.parametrize(
    ("text", "shape", "count"),
    [
        (FLOAT_CONV, (1, 3, 16, 20), 16 * 20 * 12 * 27),
        (GROUPED, (1, 4, 8, 9), 8 * 9 * 6 * 2 * 9),
        (TRANSPOSED, (1, 4, 8, 9), 8 * 9 * 4 * 5 * 4),
        (PRODUCT, (2, 5, 7), 2 * 5 * 7 * 3),
    ],
)
def test_openvino_macs_are_those_of_a_hand_count(
    text: str, shape: tuple[int, ...], count: int, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    path = saved(tmp_path, text)
    nodes = openvino.executed_nodes(path, {"image": np.ones(shape, np.float32)}, 1, 2)
    assert macs(nodes) == count == model_cost(path, {"image": shape}).macs
    assert {node.integer for node in nodes if node.macs} == {False}


def test_openvino_multiplies_a_qdq_convolution_in_integers_and_has_fused_the_rest(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    nodes = openvino.executed_nodes(
        saved(tmp_path, INTEGER_CONV), {"image": np.ones((1, 3, 16, 20), np.uint8)}, 1, 3
    )
    (found,) = [node for node in nodes if node.macs]
    assert found.op.split()[0] == "Convolution"
    assert found.integer is True
    assert found.macs == 16 * 20 * 12 * 27
    assert found.inputs[:2] == (
        ExecutedTensor("uint8", (1, 3, 16, 20)),
        ExecutedTensor("int8", (12, 3, 3, 3)),
    )
    assert {node.provider for node in nodes} == {"OpenVINO"}
    assert all(len(node.nanoseconds) == 1 and node.nanoseconds[0] >= 0 for node in nodes)
    assert not any("Quantize" in node.op for node in nodes)


@pytest.mark.parametrize("shape", [(1, 4, 16, 20), (3, 16, 20)])
def test_openvino_refuses_another_shape_in_one_line(shape: tuple[int, ...], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = saved(tmp_path, FLOAT_CONV)
    with pytest.raises(ModelError, match="choose another --shape"):
        openvino.executed_nodes(path, {"image": np.ones(shape, np.float32)}, 1, 1)


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs", "count"),
    [
        ("MatMul", [(4, 7), (7, 3)], [(4, 3)], 4 * 7 * 3),
        ("MatMul", [(7, 4), (7, 3)], [(4, 3)], 4 * 7 * 3),  # the first factor transposed
        ("FullyConnected", [(2, 4, 7), (3, 7)], [(2, 4, 3)], 2 * 4 * 7 * 3),
        ("Deconvolution", [(1, 4, 5, 5), (2, 2, 3, 2, 2)], [(1, 6, 10, 10)], 100 * 3 * 4),  # two groups
        ("Eltwise", [(1, 4), (1, 4)], [(1, 4)], 0),
        ("Convolution", [(1, 4, 5, 5)], [(1, 4, 5, 5)], 0),
    ],
)
def test_multiplications_of_layers_by_their_shapes(
    kind: str, inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]], count: int
) -> None:
    assert openvino.multiplications(kind, inputs, outputs) == count


def tflite(folder: Path, **options: object) -> Path:
    rng = np.random.default_rng(0)
    first = conv("first", "image", rng.integers(-8, 8, (4, 3, 3, 3)), grid(0.1))
    last = conv("last", "first", rng.integers(-8, 8, (5, 4, 1, 1)), grid(0.1))
    path = folder / "model.tflite"
    path.write_bytes(write_tflite(network(image(), first, last), 6, 7, **options).data)  # type: ignore[arg-type]
    return path


def run_litert(path: Path, argument: str, feed: Feed) -> tuple[ExecutedNode, ...]:
    return litert.executed_nodes(open_interpreter(argument, path, 1, {}), path, feed, argument)


def litert_feed(path: Path, *size: int) -> Feed:
    (found,) = open_interpreter("", path, 1, {}).get_input_details()
    return {found["name"]: np.zeros((1, *size, 3), found["dtype"])}


def test_litert_says_which_operators_xnnpack_took(tmp_path: Path) -> None:
    path = tflite(tmp_path, io="uint8")
    nodes = run_litert(path, "xnnpack", litert_feed(path, 6, 7))
    assert [(node.op, node.provider) for node in nodes] == [
        ("QUANTIZE", "LiteRT"), ("CONV_2D", "XNNPACK"), ("CONV_2D", "XNNPACK"), ("QUANTIZE", "LiteRT"),
    ]  # fmt: skip
    assert [node.macs for node in nodes] == [0, 6 * 7 * 4 * 27, 6 * 7 * 5 * 4, 0]
    assert [node.integer for node in nodes] == [None, True, True, None]
    assert nodes[1].inputs[:2] == (ExecutedTensor("int8", (1, 6, 7, 3)), ExecutedTensor("int8", (4, 3, 3, 3)))
    assert {node.nanoseconds for node in nodes} == {()}


def test_litert_without_a_delegate_runs_all_itself(tmp_path: Path) -> None:
    path = tflite(tmp_path)
    nodes = run_litert(path, "", litert_feed(path, 6, 7))
    assert {node.provider for node in nodes} == {"LiteRT"}


def test_litert_counts_at_the_size_that_it_was_given(tmp_path: Path) -> None:
    path = tflite(tmp_path, resizable=True)
    assert macs(run_litert(path, "xnnpack", litert_feed(path, 9, 10))) == 9 * 10 * (4 * 27 + 5 * 4)


def test_litert_refuses_a_size_that_the_file_does_not_take(tmp_path: Path) -> None:
    path = tflite(tmp_path)
    with pytest.raises(ModelError, match="choose another --shape"):
        run_litert(path, "xnnpack", litert_feed(path, 9, 10))


def node(name: str, op: str, count: int = 0, integer: bool | None = None, *times: int) -> ExecutedNode:
    tensor = ExecutedTensor("uint8", (1, 1000))
    return ExecutedNode(name, op, "CPU", (tensor,), (tensor,), count, integer, times)


NODES = (
    node("a", "Conv", 400_000, True, 2_000, 1_000, 3_000),  # 2 us: 0.8 M operations, 400 GOPS
    node("b", "Add", 0, None, 1_000, 1_000, 1_000),
    node("c", "Conv", 250_000, False, 10_000, 10_000, 10_000),  # 50 GFLOPS
    node("d", "Conv", 400_000, True, 7_000, 7_000, 7_000),
)


def test_a_profile_sorts_by_time_and_shares_add_up() -> None:
    found = profile(NODES, PEAK)
    assert [row.name for row in found.rows] == ["c", "d", "a", "b"]
    assert [row.microseconds for row in found.rows] == [10, 7, 2, 1]
    assert [row.share for row in found.rows] == [0.5, 0.35, 0.1, 0.05]
    assert (found.total.microseconds, found.total.share, found.total.macs) == (20, 1, 1_050_000)


def test_rates_are_two_operations_a_mac_against_the_peak_of_their_kind() -> None:
    rows = {row.name: row for row in profile(NODES, PEAK).rows}
    assert (rows["a"].gops, rows["a"].peak_share) == pytest.approx((400, 0.5))  # of 800
    assert (rows["c"].gops, rows["c"].peak_share) == pytest.approx((50, 0.5))  # of 100
    assert (rows["b"].gops, rows["b"].peak_share) == (None, None)
    assert rows["a"].gigabytes == pytest.approx(1)  # 2000 bytes in 2 us


def test_operations_are_summed_and_mixed_arithmetic_takes_each_of_its_peaks() -> None:
    operations = profile(NODES, PEAK).operations
    assert [(row.op, row.nodes, row.microseconds, row.integer) for row in operations] == [
        ("Conv", 3, 19, None), ("Add", 1, 1, None),
    ]  # fmt: skip
    # at the peaks: 1.6 M operations at 800 G/s are 2 us, 0.5 M at 100 G/s are 5 us, of 19 us
    assert operations[0].peak_share == pytest.approx(7 / 19)


def test_nodes_without_times_keep_their_order_and_show_a_dash() -> None:
    nodes = (node("z", "CONV_2D", 10, True), node("y", "ADD"), node("x", "CONV_2D", 10, None))
    found = profile(nodes, PEAK)
    assert [row.name for row in found.rows] == ["z", "y", "x"]
    assert (found.total.microseconds, found.total.macs, found.total.gops) == (None, 20, None)
    assert "-" in shown(node_table(found)).splitlines()[3]


def test_what_is_not_known_to_be_integer_has_no_share_of_a_peak() -> None:
    (row,) = profile((node("a", "Conv", 100, None, 1000),), PEAK).rows
    assert (row.peak_share, row.gops) == (None, pytest.approx(0.2))


def test_a_profile_is_json_and_needs_no_peak_and_no_nodes() -> None:
    assert json.loads(json.dumps(asdict(profile(NODES))))["rows"][0]["peak_share"] is None
    assert profile(()).total.share is None


def test_packed_and_unknown_types_have_the_bytes_that_are_known() -> None:
    def rate(dtype: str) -> float | None:
        tensor = ExecutedTensor(dtype, (3,))
        (row,) = profile((replace(NODES[1], inputs=(tensor,), outputs=()),)).rows
        return row.gigabytes

    assert [rate(kind) for kind in ("int4", "bfloat16", "float32", "", "opaque")] == pytest.approx(
        [0.002, 0.006, 0.012, 0, 0]
    )


def shown(table: Table) -> str:
    console = Terminal(width=140)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_tables_show_names_as_they_are_and_the_sums() -> None:
    found = profile((node("[bold]x", "Conv", 400_000, True, 2_000), NODES[1]), PEAK)
    text = shown(node_table(found))
    assert "[bold]x" in text
    for cell in ("2.0", "66.7%", "400,000", "400.0", "50.0%"):
        assert cell in text
    assert "3.0" in text.splitlines()[-2]
    assert shown(operation_table(found)).count("Conv") == 1
    assert "800 GOPS" in peak_line(PEAK)


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Kernels run three times each, and the cache is empty."""
    monkeypatch.setenv("QNAS_CACHE", str(tmp_path))
    monkeypatch.setattr(roofline, "SECONDS", 0.0)
    monkeypatch.setattr(roofline, "LIMIT", 0.0)
    monkeypatch.setattr(roofline, "STREAMED", 1 << 16)
    return tmp_path


def test_the_peak_is_measured_once_and_kept(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = machine_peak(1)
    assert min(first.integer_gops, first.float_gflops, first.gigabytes) > 0
    monkeypatch.setattr(roofline, "measure_peak", None)  # would fail when called
    assert machine_peak(1) == first
    assert [path.suffix for path in (quick / "roofline").iterdir()] == [".json"]


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", "null", '{"peak": {}, "key": ""}', "[" * 100_000, "\udcff"],
    ids=["empty", "cut", "list", "null", "fields", "deep", "bytes"],
)
def test_a_damaged_cache_is_measured_again(damage: str, quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "measure_peak", lambda threads, runtime: PEAK)
    machine_peak(1)
    (kept,) = (quick / "roofline").iterdir()
    kept.write_bytes(damage.encode("utf-8", "surrogateescape"))
    assert machine_peak(1) == PEAK
    assert json.loads(kept.read_text())["peak"]["integer_gops"] == 800


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), "800", None])
def test_an_impossible_kept_rate_is_measured_again(
    rate: object, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "measure_peak", lambda threads, runtime: PEAK)
    machine_peak(1)
    (kept,) = (quick / "roofline").iterdir()
    content = json.loads(kept.read_text())
    content["peak"]["gigabytes"] = rate
    kept.write_text(json.dumps(content))
    assert machine_peak(1) == PEAK


def test_other_threads_and_versions_have_a_peak_of_their_own(
    quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        roofline, "measure_peak", lambda threads, runtime: replace(PEAK, threads=threads, runtime=runtime)
    )
    assert [machine_peak(threads).threads for threads in (1, 2, 1)] == [1, 2, 1]
    monkeypatch.setattr("onnxruntime.__version__", "0.0")
    assert machine_peak(1).runtime == "onnxruntime 0.0"


def test_a_cache_that_cannot_be_written_is_no_error(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = quick / "file"
    blocked.write_text("")
    monkeypatch.setenv("QNAS_CACHE", str(blocked))
    monkeypatch.setattr(roofline, "measure_peak", lambda threads, runtime: PEAK)
    assert machine_peak(1) == PEAK
