"""Exported models compute what the trained network computes, bit for bit, in every backend."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from qnas.cost.network_cost import network_cost
from qnas.errors import ModelError
from qnas.export.integers import integer_network
from qnas.export.model import build_float32, build_qdq
from qnas.export.options import Options
from qnas.export.run import export
from qnas.export.targets import TARGETS
from qnas.export.to_onnx.simplify import simplify
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.trained import TrainedParameters
from qnas.network.architecture import Choice, find_architecture, named_architectures
from qnas.onnx.cost import model_cost
from qnas.onnx.fusion import count_integer_convolutions
from qnas.onnx.session import EXACT_SUMS, open_session
from qnas.search.space.candidate_costs import owns
from qnas.testing.random_networks import build, noise, random_found
from qnas.torch.checkpoint import save_found
from qnas.torch.inference import upscaler

QUANTIZED = [name for name in named_architectures() if not name.endswith("w32")]


def run(model: onnx.ModelProto, image: np.ndarray, backend: str) -> np.ndarray:
    feed = {"image": np.ascontiguousarray(image.transpose(2, 0, 1)[None])}
    if backend == "reference":
        return ReferenceEvaluator(model).run(None, feed)[0][0].transpose(1, 2, 0)
    session = open_session(model.SerializeToString(), threads=1, optimized=backend == "fused")
    return session.run(None, feed)[0][0].transpose(1, 2, 0)


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_backend_equals_torch_on_every_pixel(name: str) -> None:
    found = random_found(name)
    image = noise(37, 26, seed=1)
    expected = upscaler(found.network)(image)
    assert expected.std() > 10
    model = build_qdq(found)
    onnx.checker.check_model(model, full_check=True)
    for backend in ("reference", "unfused", "fused"):
        np.testing.assert_array_equal(run(model, image, backend), expected, err_msg=backend)


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_convolution_runs_as_integers(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(build_qdq(random_found(name)), path)
    fusion = count_integer_convolutions(path)
    assert fusion.integer == fusion.total > 0
    assert fusion.float_ops == ()  # adds, products, pools and resizes are integer as well


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_convolution_knows_its_grids_when_the_session_loads(name: str, tmp_path: Path) -> None:
    """A zero point that is computed at run time, be it a squeezed constant, doubles a kernel's time."""
    dump = tmp_path / "optimized.onnx"
    open_session(build_qdq(random_found(name)).SerializeToString(), optimized_model_path=dump)
    graph = onnx.load(dump).graph
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "QLinearConv":
            assert set(node.input[1:]) <= constants, node.name


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 2), (16, 16)])
def test_one_model_takes_images_of_any_size(size: tuple[int, int]) -> None:
    found = random_found("basic-adq-w48-example")
    image = noise(*size, seed=2)
    np.testing.assert_array_equal(run(build_qdq(found), image, "fused"), upscaler(found.network)(image))


def test_a_batch_equals_its_images_one_by_one() -> None:
    found = random_found("espcn-w4")
    images = np.stack([noise(8, 9, seed) for seed in range(3)]).transpose(0, 3, 1, 2)
    session = open_session(build_qdq(found).SerializeToString(), threads=1)
    together = session.run(None, {"image": images})[0]
    singles = [session.run(None, {"image": image[None]})[0][0] for image in images]
    np.testing.assert_array_equal(together, np.stack(singles))


@pytest.mark.parametrize("bits", [2, 3, 5, 6, 7])
def test_other_bit_widths_are_exact_too(bits: int) -> None:
    found = build(find_architecture("espcn-w8").with_bits(bits))
    image = noise(12, 13, seed=3)
    np.testing.assert_array_equal(run(build_qdq(found), image, "fused"), upscaler(found.network)(image))


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("name", ["espcn-w8", "srresnet-w8", "basic-w4"])
def test_other_scales_are_exact_too(name: str, scale: int) -> None:
    architecture = replace(find_architecture(name), scale=scale, blocks=1)
    slots = set(find_architecture(name).layers)
    keep = {"espcn-w8": slots, "basic-w4": {s for s in slots if not s.startswith(("body.1", "body.2"))}}.get(
        name, {"conv_first", "body.0.conv_0", "body.0.conv_1", "upsample.0", "conv_hr", "conv_last"}
    )
    architecture = replace(architecture, layers={s: c for s, c in architecture.layers.items() if s in keep})
    found = build(architecture)
    image = noise(11, 10, seed=4)
    upscaled = run(build_qdq(found), image, "fused")
    assert upscaled.shape == (11 * scale, 10 * scale, 3)
    np.testing.assert_array_equal(upscaled, upscaler(found.network)(image))


def test_four_bit_weights_are_stored_in_four_bits_and_eight_bit_ones_in_eight() -> None:
    model = build_qdq(random_found("basic-w48-example"))
    types = {t.name: t.data_type for t in model.graph.initializer if t.name.endswith(".weight")}
    choices = find_architecture("basic-w48-example").layers
    for slot, choice in choices.items():
        expected = onnx.TensorProto.INT4 if choice.bits == 4 else onnx.TensorProto.INT8
        own = {kind for name, kind in types.items() if owns(slot, name)}
        assert own == {expected}, slot


def test_weights_in_the_file_are_those_of_the_numpy_definition() -> None:
    from qnas.quantization.quantizers import QuantParams, quantize, weight_spec

    found = random_found("espcn-w8")
    model = build_qdq(found)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    weight = found.network.module("conv_1").weight.detach().numpy()
    params = QuantParams.weight(weight_spec(8), tensors["conv_1.weight_scale"])
    np.testing.assert_array_equal(tensors["conv_1.weight"], quantize(weight, params))


def test_biases_in_the_file_are_rounded_as_the_network_rounds_them() -> None:
    found = build(find_architecture("espcn-w8"))
    module = found.network.module("conv_1")
    layer = next(layer for layer in found.network.layers if layer.name == "conv_1")
    scale = found.network.input_scale(layer)
    with torch.no_grad():
        step = module.quantized_weight()[1] * scale
        share = 1 + torch.rand(len(step), 400, generator=torch.Generator().manual_seed(0)).double()
        # So large that a quotient in float32 and one in float64 round some of them differently.
        biases = (share * 1.01 * 2**20 * step.max().double()).float()
        for bias in biases.T:
            module.bias.copy_(bias)
            expected = torch.round(bias / step).numpy()
            np.testing.assert_array_equal(TrainedParameters(found.network).convolution(layer).bias, expected)


def test_the_shuffle_moved_to_the_end_computes_the_same_as_the_plain_graph() -> None:
    found = random_found("rfdn-adq-w48-example")
    target = TARGETS["onnxruntime"]
    plain = write_onnx(integer_network(found), target)
    image = noise(17, 16, seed=5)  # ESA needs 15 pixels
    moved = build_qdq(found)
    assert [n.op_type for n in moved.graph.node][-1] == "DepthToSpace"
    np.testing.assert_array_equal(run(plain, image, "unfused"), run(moved, image, "unfused"))


def test_grouped_and_five_wide_tails_move_behind_the_shuffle_exactly() -> None:
    architecture = find_architecture("basic-w4")
    layers = dict(architecture.layers) | {
        "tail.0": Choice("simple_5x5", 8), "tail.1": Choice("simple_3x3_grouped_3", 4)
    }  # fmt: skip
    found = build(replace(architecture, layers=layers))
    image = noise(9, 8, seed=6)
    np.testing.assert_array_equal(run(build_qdq(found), image, "reference"), upscaler(found.network)(image))


def test_the_float32_twin_equals_the_float_network() -> None:
    found = random_found("rfdn-w8")
    from qnas.export.model import float_twin

    x = torch.rand(1, 3, 17, 16, generator=torch.Generator().manual_seed(0))
    session = open_session(build_float32(found).SerializeToString(), threads=1)
    with torch.no_grad():
        expected = float_twin(found).network(x).numpy()
    np.testing.assert_allclose(session.run(None, {"image": x.numpy()})[0], expected, atol=1e-3)


@pytest.mark.parametrize("name", ["espcn-w4", "espcn-w8", "srresnet-w8"])
def test_cost_of_the_plain_file_equals_cost_of_the_layers(name: str) -> None:
    found = random_found(name)
    ours = network_cost(found.network.layers, 32, 24)
    theirs = model_cost(build_qdq(found, TARGETS["portable"]), {"image": (1, 3, 32, 24)})
    # Bilinear upscaling is a 3x3 convolution 3 -> 48 in the file.
    upscaling = 9 * 3 * 48 * 32 * 24 if name == "srresnet-w8" else 0
    assert (theirs.macs - upscaling, theirs.bitops - 64 * upscaling) == (ours.macs, ours.bitops)


def test_onnxsim_keeps_every_quantizer_and_every_int4_weight() -> None:
    model = build_qdq(random_found("basic-w48-example"))
    simplified, note = simplify(model)
    assert note.endswith("kept 26 QuantizeLinear, 59 DequantizeLinear, 11 INT4 weights")
    image = noise(8, 8)
    np.testing.assert_array_equal(run(simplified, image, "fused"), run(model, image, "fused"))


def test_a_simplification_that_loses_quantizers_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxsim

    model = build_qdq(random_found("espcn-w8"))
    poorer = onnx.ModelProto()
    poorer.CopyFrom(model)
    poorer.graph.node.remove(next(n for n in poorer.graph.node if n.op_type == "QuantizeLinear"))
    monkeypatch.setattr(onnxsim, "simplify", lambda *_, **__: (poorer, True))
    kept, note = simplify(model)
    assert kept is model
    assert note.startswith("onnxsim skipped")


def test_float_residuals_and_float_layers_are_refused_by_name() -> None:
    architecture = find_architecture("basic-w8")
    floating = build(replace(architecture, residual_bits=None))
    with pytest.raises(ModelError, match="residual_bits 8"):
        build_qdq(floating)
    mixed = build(
        replace(architecture, layers=dict(architecture.layers) | {"tail.1": Choice("simple_3x3", 32)})
    )
    with pytest.raises(ModelError, match=r"tail\.1 has 32 bits"):
        build_qdq(mixed)
    with pytest.raises(ModelError, match="full precision"):
        build_qdq(build(architecture.with_bits(32)))


def test_a_written_file_loads_in_onnxruntime_alone_with_the_option_that_its_note_names(
    tmp_path: Path,
) -> None:
    """Version 1.31 refuses files of which two convolutions share a constant of int8, zero points included."""
    found = random_found("basic-w48-example")
    save_found(tmp_path / "found.pt", found.architecture, found.network, {})
    export(tmp_path / "found.pt", Options(("onnx-qdq",), parity=False))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(EXACT_SUMS, "1")
    onnxruntime.InferenceSession(str(tmp_path / "found.onnx"), options)
