"""Weights that are stored as halves, sparse or as integers are read as the float32 numbers that they are."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qnas.errors import ModelError
from qnas.onnx.session import open_session
from qnas.onnx.stored_weights import as_float32, is_quantized
from qnas.testing.text_models import INTEGER_CONV, text_model

NETWORK = """
net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled) <float[12, 3, 3, 3] k>
{
    c = Conv <pads = [1, 1, 1, 1]> (image, k)
    upscaled = DepthToSpace <blocksize = 2, mode = "CRD"> (c)
}"""
WEIGHTS = np.random.default_rng(0).normal(size=(12, 3, 3, 3)).astype(np.float32)


def written(model: ModelProto) -> np.ndarray:
    image = np.random.default_rng(1).uniform(size=(1, 3, 9, 7)).astype(np.float32)
    return np.asarray(open_session(model.SerializeToString(), threads=1).run(None, {"image": image})[0])


def network(weights: np.ndarray) -> ModelProto:
    model = text_model(NETWORK)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights.astype(np.float32), "k"))
    return model


@pytest.mark.parametrize(
    ("kind", "name"), [(TensorProto.FLOAT16, "float16"), (TensorProto.BFLOAT16, "bfloat16")]
)
def test_a_whole_network_of_halves_has_their_values(kind: int, name: str) -> None:
    halves = helper.make_tensor("k", kind, WEIGHTS.shape, WEIGHTS.reshape(-1))
    model = text_model(NETWORK)
    model.graph.initializer[0].CopyFrom(halves)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    said = as_float32(model)
    assert said == (f"{name} numbers are read as float32, all of which have the same value",)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(
        written(model), written(network(numpy_helper.to_array(halves).astype(np.float32)))
    )


def test_casts_to_halves_and_back_inside_do_nothing() -> None:
    model = text_model(NETWORK.replace("c = Conv <pads = [1, 1, 1, 1]> (image, k)", """
    i = Cast <to = 10> (image)
    l = Cast <to = 10> (k)
    d = Conv <pads = [1, 1, 1, 1]> (i, l)
    c = Cast <to = 1> (d)"""))  # fmt: skip
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHTS, "k"))
    assert as_float32(model)
    np.testing.assert_array_equal(written(model), written(network(WEIGHTS)))


@pytest.mark.parametrize("linear", [True, False])
def test_sparse_weights_get_their_zeros(linear: bool) -> None:
    weights = np.where(np.abs(WEIGHTS) > 1, WEIGHTS, 0)
    places = np.flatnonzero(weights) if linear else np.argwhere(weights)
    model = network(weights)
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            numpy_helper.from_array(weights[weights != 0], "k"),
            numpy_helper.from_array(places.astype(np.int64), "places"),
            weights.shape,
        )
    )
    assert as_float32(model) == ("sparse weights are read with their zeros",)
    np.testing.assert_array_equal(written(model), written(network(weights)))


@pytest.mark.parametrize(
    ("places", "said"), [([400], "are damaged"), ([-1], "are damaged"), ([0, 1], "are damaged")]
)
def test_sparse_weights_at_impossible_places_are_refused(places: list[int], said: str) -> None:
    model = network(WEIGHTS)
    del model.graph.initializer[:]
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float32), "k"),
        numpy_helper.from_array(np.array([0]), "places"),
        [12, 3, 3, 3],
    )
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array(places), "places"))
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(ModelError, match="are damaged"):
        as_float32(model)


def test_sparse_weights_that_would_fill_the_memory_are_refused() -> None:
    model = network(WEIGHTS)
    one = numpy_helper.from_array(np.ones(1, np.float32), "large")
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(one, numpy_helper.from_array(np.array([0]), "at"), [1 << 20, 1 << 20])
    )
    with pytest.raises(ModelError, match="export a smaller network"):
        as_float32(model)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_weights_that_alone_are_integers_are_the_numbers_that_they_stand_for(kind: str) -> None:
    top = 127 if kind == "int8" else 7
    scale = (np.abs(WEIGHTS).max(axis=(1, 2, 3)) / top).astype(np.float32)
    steps = np.rint(WEIGHTS / scale.reshape(-1, 1, 1, 1))
    text = NETWORK.replace("float[12, 3, 3, 3] k", f"{kind}[12, 3, 3, 3] q, float[12] s").replace(
        "c = Conv", "k = DequantizeLinear <axis = 0> (q, s)\n c = Conv"
    )
    model = text_model(text.replace("int4[12, 3, 3, 3] q, ", ""))
    del model.graph.initializer[:]
    number = TensorProto.INT8 if kind == "int8" else TensorProto.INT4
    model.graph.initializer.extend([
        helper.make_tensor("q", number, WEIGHTS.shape, steps.astype(np.int8).reshape(-1)),
        numpy_helper.from_array(scale, "s"),
    ])  # fmt: skip
    assert not is_quantized(model)
    assert "only the weights are stored as integers" in as_float32(model)[0]
    assert [node.op_type for node in model.graph.node] == ["Conv", "DepthToSpace"]
    np.testing.assert_array_equal(written(model), written(network(steps * scale.reshape(-1, 1, 1, 1))))


def test_a_network_whose_activations_are_integers_is_quantized() -> None:
    assert is_quantized(text_model(INTEGER_CONV))
    assert not is_quantized(text_model(NETWORK))
