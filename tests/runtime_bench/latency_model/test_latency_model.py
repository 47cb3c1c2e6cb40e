"""The latency model: kernels, the regression over their sizes, the file, and what is predicted from it."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.documents.latency_model import OperationTime
from qnas.errors import ModelError
from qnas.export.integers import integer_network
from qnas.export.model import build_qdq
from qnas.export.targets import TARGETS
from qnas.export.targets import fitted as shipped
from qnas.integer.builder import build_network
from qnas.integer.convolution import Conv
from qnas.integer.interpreter import run
from qnas.integer.network import IntegerNetwork
from qnas.network.architecture import Architecture, Choice
from qnas.network.lowering import lower
from qnas.runtime_bench import fit_cli, operations_cli, predict_cli
from qnas.runtime_bench.latency_model import fitting
from qnas.runtime_bench.latency_model.fitting import assemble, evaluate, predicted
from qnas.runtime_bench.latency_model.kernels import Kernel, kernels
from qnas.runtime_bench.latency_model.networks import SPACES, random_member, untrained_model, write_members
from qnas.runtime_bench.latency_model.operations import (
    built_in_spaces,
    image_sizes,
    operation_times,
    with_operations,
)
from qnas.runtime_bench.latency_model.prediction import predict
from qnas.runtime_bench.latency_model.regression import fit_family, nonnegative
from qnas.runtime_bench.latency_model.sampling import Network, Sample, middle, sample
from qnas.runtime_bench.latency_model.table import KernelTime, LatencyModel, read_latency_model
from qnas.runtime_bench.latency_model.untrained import UntrainedParameters
from qnas.runtimes.inputs import parse_shape
from qnas.runtimes.onnxruntime import execute
from qnas.search.space.latency_costs import latency_costs
from qnas.search.space.search_space import SearchSpace, find_space, from_document, named_spaces
from qnas.testing.random_networks import build, noise

ABACUS = {"cpu": "abacus", "machine": "wood", "runtime": "beads"}
DENSE = "group=1 strides=1,1"


def convolution(read: int, written: int, k: int = 3, size: int = 32, attributes: str = DENSE) -> Kernel:
    image, weights = (1, size, size, read), (written, read, k, k)
    return Kernel("QLinearConv", ("uint8", "int8"), (image, weights), (1, size, size, written), attributes)


def clip(channels: int, size: int = 32) -> Kernel:
    image = (1, size, size, channels)
    return Kernel("Clip", ("uint8",), (image,), image)


def untrained(architecture: Architecture, seed: int) -> IntegerNetwork:
    layers = lower(architecture)
    return build_network("untrained", architecture.scale, layers, UntrainedParameters(layers, seed))


def law(kernel: Kernel) -> float:
    """A machine that is simpler than any: 2 us, and 1 ns for every 8 multiply-adds of full vectors."""
    if not kernel.convolution:
        return 1000.0
    written, read, kh, kw = kernel.inputs[1]
    pixels = kernel.output[1] * kernel.output[2]
    return 2000.0 + pixels * (-(-written // 16) * 16) * (-(-read * kh * kw // 4) * 4) / 8


CONVOLUTIONS = [convolution(r, w, k) for r in (4, 8, 16, 32) for w in (16, 24, 48) for k in (1, 3, 5)]


def model_of(*known: Kernel, **changes: Any) -> LatencyModel:
    rows = tuple(KernelTime(each, law(each), 3) for each in known or (*CONVOLUTIONS, clip(16), clip(32)))
    model = LatencyModel("cpu", 1, ABACUS, rows, 100.0, 5000.0)
    return replace(model, **changes)


# Regression ------------------------------------------------------------------------------------------------


def test_nonnegative_least_squares_leaves_out_what_would_be_negative() -> None:
    # Without the bound x = (2, -1). At x1 = 0 the best x0 is (1*1 + 1*0) / 2... computed by hand: 3/2.
    matrix = np.array([[1.0, 1.0], [1.0, 0.0]])
    assert nonnegative(matrix, np.array([1.0, 2.0])).tolist() == pytest.approx([1.5, 0.0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 5))
def test_nonnegative_solution_meets_the_conditions_of_karush_kuhn_and_tucker(
    seed: int, m: int, n: int
) -> None:
    rng = np.random.default_rng(seed)
    matrix, target = rng.normal(size=(m, n)), rng.normal(size=m)
    x = nonnegative(matrix, target)
    gradient = matrix.T @ (target - matrix @ x)
    assert (x >= 0).all()
    assert (gradient <= 1e-6).all()
    assert np.abs(gradient[x > 1e-9]).max(initial=0) < 1e-6


def test_family_recovers_the_law_of_its_machine_at_sizes_between_and_beyond() -> None:
    family = fit_family(CONVOLUTIONS, [law(each) for each in CONVOLUTIONS])
    for unseen in (convolution(12, 32), convolution(64, 96, 7), convolution(8, 24, 3, 100)):
        assert family.predict(unseen) == pytest.approx(law(unseen), rel=0.02)


def test_what_the_law_misses_is_learned_from_neighbours() -> None:
    def odd(kernel: Kernel) -> float:
        return law(kernel) * (1.4 if kernel.inputs[1][2] == 5 else 1.0)

    family = fit_family(CONVOLUTIONS, [odd(each) for each in CONVOLUTIONS])
    for known in (convolution(8, 24, 5), convolution(8, 24, 3)):
        assert family.predict(known) == pytest.approx(odd(known), rel=0.05)


def test_family_knows_where_it_was_measured() -> None:
    family = fit_family(CONVOLUTIONS, [law(each) for each in CONVOLUTIONS])
    assert family.covers(convolution(10, 20))
    assert not family.covers(convolution(10, 49))
    assert not family.covers(convolution(10, 20, 7))
    far_apart = [convolution(4, 16, size=8), convolution(32, 48, size=128)]
    assert not fit_family(far_apart, [1e4, 1e6]).covers(convolution(10, 24, size=32))


def test_middle_is_the_mean_of_the_middle_half() -> None:
    assert middle([100, 1, 2, 3, 4, 5, 6, -50]) == 3.5  # of 2, 3, 4, 5
    assert middle([7]) == 7


# Kernels ---------------------------------------------------------------------------------------------------


def test_kernels_differ_in_one_family_by_sizes_alone() -> None:
    assert convolution(4, 8).family == convolution(16, 32, 5, 64).family
    assert convolution(4, 8).family != convolution(4, 8, attributes="group=1 strides=2,2").family
    image = (1, 8, 8, 4)
    both = Kernel("QLinearAdd", ("uint8", "uint8"), (image, image), image)
    zero = Kernel("QLinearAdd", ("uint8", "uint8"), (image, (1, 1, 1, 1)), image)
    assert both.family != zero.family


@pytest.mark.parametrize(
    ("space", "seed"), [("basic", 0), ("basic", 1), ("rfdn_space", 2), ("rfdn_space", 5)]
)
def test_generated_networks_run_the_kernels_of_exported_ones(space: Any, seed: int, tmp_path: Path) -> None:
    member = random_member(space, seed)
    found = []
    for name, model in (
        ("made", untrained_model(member, seed)),
        ("exported", build_qdq(build(member, seed))),
    ):
        onnx.save(model, tmp_path / f"{name}.onnx")
        image = np.zeros((1, 3, 16, 16), np.uint8)
        executed = execute(tmp_path / f"{name}.onnx", {"image": image}, runs=1, warmup=0)
        found.append(Counter(kernels(executed.nodes, executed.graph)))
    made, exported = found
    assert (made & exported).total() >= 0.95 * exported.total()
    assert abs(made.total() - exported.total()) <= 4


@pytest.mark.parametrize("space", SPACES.values())
@pytest.mark.parametrize("seed", range(3))
def test_an_untrained_network_has_the_nodes_and_shapes_of_a_trained_one(space: Any, seed: int) -> None:
    member = random_member(space, seed)
    made, trained = (
        [
            (type(node), node.name, node.channels, node.weight.shape if isinstance(node, Conv) else None)
            for node in shipped(net, TARGETS["onnxruntime"]).nodes
        ]
        for net in (untrained(member, seed), integer_network(build(member, seed)))
    )
    assert made == trained


@pytest.mark.parametrize("space", SPACES.values())
def test_an_untrained_network_is_lively(space: Any) -> None:
    net = untrained(random_member(space, 0), 0)
    result = run(net, noise(17, 22).transpose(2, 0, 1)[None])
    assert result.std() > 30
    assert len(np.unique(result)) > 200
    for node, _ in net.convolutions():
        if node.bits == 4:
            assert {-3, -1, 0, 1, 3} <= set(node.weight.ravel().tolist())
        assert node.weight.std() > 1 or node.name == "body.scaled"  # a factor, the same for all channels


def test_members_are_the_same_for_the_same_seed_and_in_their_space() -> None:
    for space in SPACES.values():
        assert random_member(space, 7) == random_member(space, 7) != random_member(space, 8)
        assert random_member(space, 7).space == space


# The model -------------------------------------------------------------------------------------------------


def test_basis_says_how_near_the_measurements_are() -> None:
    model = model_of()
    assert model.time(convolution(8, 24))[1] == "measured"
    assert model.time(convolution(12, 32))[1] == "interpolated"
    assert model.time(convolution(64, 96))[1] == "extrapolated"
    assert model.time(convolution(8, 24, attributes="group=4 strides=1,1"))[1] == "extrapolated"
    assert model.time(Kernel("Softmax", ("float32",), ((1, 9),), (1, 9)))[1] == "extrapolated"


def test_unknown_family_is_guessed_from_its_operation() -> None:
    strided = convolution(8, 24, attributes="group=1 strides=2,2")
    assert model_of().time(strided)[0] == pytest.approx(law(strided), rel=0.1)


def test_empty_model_predicts_no_more_than_the_run() -> None:
    model = LatencyModel("cpu", 1, {}, (), -100.0, 50.0)
    assert model.time(clip(4)) == (0.0, "extrapolated")
    assert model.total(0.0, 1) == 0.0


def test_what_a_run_takes_besides_its_kernels_is_found() -> None:
    rounds = {}
    for index in range(1, 9):
        used = tuple(CONVOLUTIONS[: 4 * index])
        spent = tuple(map(law, used))
        whole = sum(spent) + 300.0 * len(used) + 9000.0
        rounds[f"n{index}", "size"] = [Sample(used, spent, whole)] * 2
    model = assemble(rounds, 2)
    assert (model.node_ns, model.run_ns) == pytest.approx((300.0, 9000.0), rel=0.05)
    assert model.threads == 2
    unseen = Network(tuple(CONVOLUTIONS[3:20]), sum(map(law, CONVOLUTIONS[3:20])) + 17 * 300 + 9000)
    assert predicted(model, unseen) == pytest.approx(unseen.total_ns, rel=0.01)
    accuracy = evaluate(model, [unseen, replace(unseen, total_ns=unseen.total_ns / 2)])
    assert accuracy.networks == 2
    assert accuracy.within_10 == 0.5  # the second took half of what it should
    assert accuracy.mape == pytest.approx(0.5, abs=0.02)


# Operations of search spaces -------------------------------------------------------------------------------


def small_space(*operations: str, **changes: Any) -> SearchSpace:
    document = {
        "network": "basic", "channels": 12, "blocks": 1, "scale": 4, "bits": [4, 8],
        "operations": {"*": list(operations)},
    }  # fmt: skip
    return from_document(document | changes, "small")


def times_of(model: LatencyModel, space: SearchSpace) -> dict[tuple[str, int, int, int], float]:
    """(operation, channels in and out, bits) -> nanoseconds at 32x32."""
    rows = operation_times(model, [space], [(32, 32)])
    return {(row.op, row.in_channels, row.out_channels, row.bits): row.ms * 1e6 for row in rows}


def test_an_operation_costs_its_convolutions_and_a_clip_before_each_below_eight_bits() -> None:
    known = [convolution(12, 12, k) for k in (1, 3)] + [convolution(12, 8), convolution(8, 12)]
    model = model_of(*CONVOLUTIONS, *known, clip(12), clip(8))
    times = times_of(model, small_space("simple_1x1", "simple_3x3", "simple_3x3_grouped_3", "decenc_3x3_2"))
    eight = times["simple_3x3", 12, 12, 8]
    assert eight == pytest.approx(law(convolution(12, 12)) + 100, rel=0.01)  # 100 ns a node
    assert times["simple_3x3_grouped_3", 12, 12, 8] == eight  # written dense
    assert times["simple_3x3", 12, 12, 4] - eight == pytest.approx(1000 + 100, rel=0.01)
    assert times["simple_3x3", 12, 12, 2] == times["simple_3x3", 12, 12, 4]
    inner = law(convolution(12, 8)) + law(convolution(8, 12)) + 2 * 100  # 6 channels are padded to 8
    assert times["decenc_3x3_2", 12, 12, 8] == pytest.approx(inner, rel=0.01)
    assert times["decenc_3x3_2", 12, 12, 4] == pytest.approx(inner + 2 * 1100, rel=0.01)
    assert times["simple_1x1", 3, 12, 4] == times["simple_1x1", 3, 12, 8]  # the image's own grid


def test_narrow_operations_behind_the_shuffle_run_between_its_phases() -> None:
    known = [
        convolution(48, 48, 1),
        convolution(48, 48),
        convolution(4, 8, 3, 128),
        convolution(8, 4, 3, 128),
    ]
    model = model_of(*CONVOLUTIONS, *known, clip(48))
    times = times_of(model, small_space("simple_1x1", "simple_3x3", "simple_5x5", "growth2_3x3"))
    assert times["simple_1x1", 3, 3, 8] == pytest.approx(law(convolution(48, 48, 1)) + 100, rel=0.01)
    assert times["simple_3x3", 3, 3, 8] == pytest.approx(law(convolution(48, 48)) + 100, rel=0.01)
    assert times["simple_5x5", 3, 3, 8] == times["simple_3x3", 3, 3, 8]  # it reaches no further than a phase
    wide = law(known[2]) + law(known[3]) + 200  # 6 channels in 16 phases are too many: at full size
    assert times["growth2_3x3", 3, 3, 8] == pytest.approx(wide, rel=0.02)


def test_operations_stand_at_the_size_of_their_result() -> None:
    rows = operation_times(model_of(), [small_space("simple_3x3", scale=2)], [(32, 48)])
    assert {(row.out_channels, row.height, row.width, row.scale) for row in rows} == {
        (12, 32, 48, 1), (3, 64, 96, 2),
    }  # fmt: skip
    assert set(rows.values()) <= {"interpolated", "extrapolated"}


def test_an_image_that_a_network_cannot_read_leaves_its_operations_out() -> None:
    names = {row.op for row in operation_times(model_of(), [find_space("edmips-rfdn")], [(8, 8)])}
    assert names == {"simple_1x1", "simple_3x3"}  # attention pools 7x7 values of half the size
    more = operation_times(model_of(), [find_space("edmips-rfdn")], [(16, 16)])
    assert {row.op for row in more} == {*names, "esa"}


def test_rows_replace_those_of_the_same_operation_alone() -> None:
    old = (OperationTime("a", 3, 3, 8, 4, 4, 1.0), OperationTime("a", 3, 3, 8, 8, 8, 2.0))
    new = OperationTime("a", 3, 3, 8, 8, 8, 5.0)
    assert with_operations(model_of(operations=old), [new]).operations == (old[0], new)


def test_sizes_are_height_and_width_of_an_image() -> None:
    asked = [parse_shape(text) for text in ("16x24", "image:1x3x8x9", "1x8x9x3", "7", "1x2x3x4x5")]
    assert image_sizes(asked) == [(16, 24), (8, 9), (8, 9)]


@pytest.mark.parametrize("name", named_spaces())
def test_every_candidate_of_the_named_spaces_has_a_time(name: str, tmp_path: Path) -> None:
    space = find_space(name)
    path = tmp_path / "cpu.json"
    path.write_text(
        with_operations(model_of(), list(operation_times(model_of(), [space], [(32, 32)]))).to_json()
    )
    for bits in ((4, 8), (2, 3)):
        assert latency_costs(space.with_bits(bits), path, 32, 32).smallest > 0


@pytest.mark.parametrize(("network", "normalization"), [("basic", "none"), ("rfdn_space", "adq")])
def test_what_a_search_adds_up_is_what_the_exported_network_runs(
    network: str, normalization: str, tmp_path: Path
) -> None:
    """All convolutions but those that no choice changes, where the tail is narrow (docs/latency-model.md)."""
    operations = ["simple_1x1", "simple_5x5", "simple_3x3_grouped_3", "growth2_3x3", "conv_3x1_1x3"]
    tail = [op for op in operations if op != "growth2_3x3"]
    patterns = {"tail.*": tail, "*": operations}
    space = small_space(network=network, bits=[8], operations=patterns, normalization=normalization)
    model = model_of(node_ns=0.0)
    path = tmp_path / "cpu.json"
    path.write_text(with_operations(model, list(operation_times(model, [space], [(16, 16)]))).to_json())
    costs = latency_costs(space, path, 16, 16)
    left = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        choices = {name: Choice(str(rng.choice(space.candidates(name))), 8) for name in space.variables}
        onnx.save(build_qdq(build(space.architecture(choices), seed)), tmp_path / "found.onnx")
        image = np.zeros((1, 3, 16, 16), np.uint8)
        executed = execute(tmp_path / "found.onnx", {"image": image}, runs=1, warmup=0)
        run = [each for each in kernels(executed.nodes, executed.graph) if each.convolution]
        left.append(sum(model.time(each)[0] for each in run) / 1e6 - costs.of(choices))
    assert left == pytest.approx([left[0]] * 3, abs=1e-4)  # norms, fusions and attention
    assert (left[0] < 1e-4) == (network == "basic")


# The file --------------------------------------------------------------------------------------------------


def test_file_reads_back_to_the_same_predictions(tmp_path: Path) -> None:
    model = model_of()
    rows = operation_times(model, [small_space("simple_3x3")], [(32, 32)])
    full = replace(model, operations=tuple(rows), accuracy=evaluate(model, [
        Network(tuple(CONVOLUTIONS[:k]), 1e6 * k) for k in (3, 5, 9)
    ]))  # fmt: skip
    path = tmp_path / "cpu.json"
    path.write_text(full.to_json())
    read = read_latency_model(path)
    assert replace(read, kernels=()) == replace(full, kernels=())
    for kernel in (convolution(8, 24), convolution(12, 32), clip(20)):
        assert read.time(kernel)[0] == pytest.approx(model.time(kernel)[0], rel=1e-3)


def damaged(change: str, value: Any) -> str:
    document = json.loads(model_of().to_json())
    *path, last = change.split(".")
    place = document
    for step in path:
        place = place[int(step) if step.isdecimal() else step]
    place[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no latency model"),
        (damaged("version", 2), "version 2 of the format, this is 1: name"),
        (damaged("more", 1), "more is unknown, not one of device"),
        (damaged("threads", "1"), "threads is '1', not a whole number"),
        (damaged("node_ns", None), "node_ns is None, not a number"),
        (damaged("kernels.0.ns", -1.0), r"kernels\[0\]\.ns is -1\.0, not a number from 0"),
        (damaged("kernels.0.ns", float("nan")), "not JSON"),
        (damaged("kernels.0.output", [1, "x"]), r"kernels\[0\]\.output\[1\] is 'x', not a whole number"),
        (damaged("kernels.0.types", ["uint8"]), "2 inputs and 1 types"),
        (damaged("kernels.0.color", "red"), r"kernels\[0\]\.color is unknown"),
    ],
)
def test_damaged_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "cpu.json"
    path.write_text(text)
    with pytest.raises(ModelError, match=message):
        read_latency_model(path)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        ["threads", "kernels.0.inputs", "kernels.0.op", "accuracy", "operations", "environment", "run_ns"]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=5,
    ),
)
def test_no_value_in_a_file_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, place: str, value: Any
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "cpu.json"
    path.write_text(damaged(place, value))
    try:
        read_latency_model(path)
    except ModelError:
        return


# Measured for real -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small networks of the basic space."""
    folder = tmp_path_factory.mktemp("members")
    write_members("basic", 10, folder)
    return folder


@pytest.fixture(scope="module")
def fitted(members: Path) -> Path:
    """The command's own file over them."""
    path = members / "cpu.json"
    arguments = ["--models", members, "--size", "16x16", "--budget", "600", "-o", path]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            fitting, "MOST_ROUNDS", 2
        )  # ends by rounds: how many fit into seconds hangs on the machine
        result = CliRunner().invoke(fit_cli.main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert "kernels of 10 networks" in result.output
    assert "left out 2: mean error" in result.output
    return path


def test_sample_has_a_time_for_every_kernel(members: Path) -> None:
    taken = sample(members / "basic-000.onnx", (parse_shape("16x16"),), 1)
    assert len(taken.kernels) == len(taken.kernel_ns)
    assert taken.total_ns > 0
    assert any(kernel.convolution for kernel in taken.kernels)


def test_prediction_is_the_sum_of_its_kernels_and_what_a_run_takes(members: Path, fitted: Path) -> None:
    model = read_latency_model(fitted)
    prediction = predict(members / "basic-000.onnx", model, (parse_shape("16x16"),))
    whole = (
        1e6 * sum(node.ms for node in prediction.nodes) + model.node_ns * len(prediction.nodes) + model.run_ns
    )
    assert 1e6 * prediction.ms == pytest.approx(whole)
    assert {node.basis for node in prediction.nodes} == {"measured"}
    assert prediction.elsewhere is None
    assert prediction.shapes == {"image": (1, 3, 16, 16)}


def test_fit_writes_what_a_search_in_a_named_space_needs(fitted: Path) -> None:
    assert fitted.stat().st_size < 1_000_000
    for space in built_in_spaces():
        assert latency_costs(space, fitted, 16, 16).largest > 0


def test_operations_of_another_space_and_size_are_added(fitted: Path, tmp_path: Path) -> None:
    space, output = tmp_path / "mine.json", tmp_path / "mine-cpu.json"
    document = small_space("simple_3x3", "simple_9x9", channels=24).to_document()
    space.write_text(json.dumps(document))
    arguments = ["--model", fitted, "--space", space, "--size", "16x24", "-o", output]
    result = CliRunner().invoke(operations_cli.main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    # 3 -> 24, 24 -> 24, 24 -> 48 and 3 -> 3 channels, two operations, four widths
    assert f"32 operations of mine -> {output}" in result.output
    assert "are unlike anything that was measured" in result.output
    assert latency_costs(find_space(str(space)), output, 16, 24).smallest > 0
    assert latency_costs(find_space("basic"), output, 16, 16).smallest > 0
    assert len(read_latency_model(output).operations) == len(read_latency_model(fitted).operations) + 32


def test_command_predicts_and_names_what_it_extrapolates(members: Path, fitted: Path) -> None:
    output = members / "prediction.json"
    arguments = [
        members / "basic-001.onnx",
        "--model",
        fitted,
        "--shape",
        "48x48",
        "--per-layer",
        "--json",
        output,
    ]
    result = CliRunner().invoke(predict_cli.main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert "ms predicted for cpu on" in result.output
    assert "of the time is extrapolated" in result.output  # 48x48 was never measured
    document = json.loads(output.read_text())
    assert document["version"] == 1
    assert document["extrapolated_share"] > 0.5
    assert document["nodes"][0]["kernel"]["inputs"]


def test_prediction_for_another_machine_says_so(members: Path, fitted: Path, tmp_path: Path) -> None:
    foreign = replace(read_latency_model(fitted), environment=ABACUS)
    path = tmp_path / "foreign.json"
    path.write_text(foreign.to_json())
    arguments = [str(members / "basic-001.onnx"), "--model", str(path), "--shape", "16x16"]
    result = CliRunner().invoke(predict_cli.main, arguments)
    assert result.exit_code == 0, result.output
    assert "ms predicted for cpu on abacus" in result.output
    assert "another machine or runtime than this one: abacus, wood, beads" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "litert"], "only cpu tells the times"),
        (["--models", "empty"], "holds 0 .onnx files, a fit needs 10"),
        (["--models", "empty", "--space", "basic"], "give one"),
        (["--size", "big"], "--shape big: write sizes"),
        (["--budget", "0.000001", "--networks", "10"], "only 0 networks were measured"),
    ],
)
def test_fit_refuses_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    result = CliRunner().invoke(fit_cli.main, [*arguments, "-o", "cpu.json"])
    assert result.exit_code == 2
    assert message in result.output
    assert not Path("cpu.json").exists()
