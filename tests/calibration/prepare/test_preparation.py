"""A prepared network computes what its file does, in forms that all that follows knows, in bounded time."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from qnas.calibration.prepare import preparation
from qnas.calibration.prepare.float_model import FloatModel, read_float_model
from qnas.errors import ModelError
from qnas.onnx.session import open_session
from qnas.testing.sr_modules import abpn_like, espcn, every_operation, export, rfdn_like, xlsr_like
from qnas.testing.text_models import text_model

MODULES = {"abpn": abpn_like, "xlsr": xlsr_like, "espcn": espcn, "rfdn": rfdn_like, "every": every_operation}
FORMS = {
    "Add", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Gather", "GlobalAveragePool",
    "LeakyRelu", "MaxPool", "Min", "Mul", "PRelu", "Relu", "Resize", "Shape", "Sigmoid", "Slice", "Unsqueeze",
}  # fmt: skip


def written(path_or_model: Path | ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    model = onnx.load(path_or_model) if isinstance(path_or_model, Path) else path_or_model
    session = open_session(model.SerializeToString(), threads=1, optimized=False)
    result: NDArray[np.float32] = session.run(None, {model.graph.input[0].name: x})[0]
    return result


def image(channels: int = 3, height: int = 24, width: int = 32) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(0, 1, (1, channels, height, width)).astype(np.float32)


@pytest.mark.parametrize("opset", range(13, 22))
@pytest.mark.parametrize("name", MODULES)
def test_what_torch_exports_computes_the_same_when_it_is_prepared(
    tmp_path: Path, name: str, opset: int
) -> None:
    path = export(MODULES[name](clip=True), tmp_path / "network.onnx", opset)
    network = read_float_model(path, "0..1")
    assert network.model.opset_import[0].version == 21
    assert {node.op_type for node in network.model.graph.node} <= FORMS
    assert np.allclose(written(network.model, image()), written(path, image()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("opset", [22, 23])
def test_newer_opsets_are_brought_to_21(tmp_path: Path, opset: int) -> None:
    path = export(espcn(clip=False), tmp_path / "network.onnx", opset)
    network = read_float_model(path, "0..1")
    assert network.model.opset_import[0].version == 21
    assert np.allclose(written(network.model, image()), written(path, image()), rtol=0, atol=1e-5)


def prepared_text(folder: Path, body: str, stored: str = "") -> tuple[ModelProto, FloatModel]:
    """A network of `body`, which makes `v` of `image`; both times 2."""
    model = text_model(f"""
net (float[n, 3, h, w] image) => (float[n, 3, y, x] out) <float[4] s = {{1, 1, 2, 2}}{stored}>
{{
    {body}
    out = Resize <mode = "nearest"> (v, , s)
}}""")
    onnx.save(model, folder / "network.onnx")
    network = read_float_model(folder / "network.onnx", "0..1")
    assert np.allclose(written(network.model, image()), written(model, image()), rtol=0, atol=1e-4)
    return model, network


def kinds(network: FloatModel) -> list[str]:
    return [node.op_type for node in network.model.graph.node]


CASES = {
    "batch norm behind a Relu": (
        "r = Relu (image)\n v = BatchNormalization (r, a, b, a, c)",
        ", float[3] a = {1, 2, 3}, float[3] b = {0.5, 0, -1}, float[3] c = {1, 4, 0.25}",
        ["Relu", "Conv", "Resize"],
    ),
    "SAME padding": (
        'v = Conv <auto_pad = "SAME_UPPER"> (image, k)', ", float[3, 3, 3, 5] k", ["Conv", "Resize"]
    ),
    "mean over an image": (
        "m = ReduceMean (image, i)\n v = Add (image, m)", ", int64[2] i = {-1, -2}",
        ["GlobalAveragePool", "Add", "Resize"],
    ),
    "factor in front of a convolution": (
        "f = Div (image, t)\n v = Conv (f, k)", ", float t = {3}, float[3, 3, 1, 1] k", ["Conv", "Resize"]
    ),
    "factor nought stays": (
        "f = Mul (image, t)\n v = Conv (f, k)", ", float t = {0}, float[3, 3, 1, 1] k",
        ["Mul", "Conv", "Resize"],
    ),
    "factor behind a clamp": (
        "l = Conv (image, k)\n c = Clip (l, a, b)\n v = Mul (c, b)",
        ", float a = {-1}, float b = {3}, float[3, 3, 1, 1] k",
        ["Conv", "Clip", "Resize"],
    ),
    "negative factor stays behind": (
        "r = Relu (image)\n v = Mul (r, b)", ", float b = {-3}", ["Relu", "Mul", "Resize"]
    ),
    "one alone joined, one unread": (
        "unread = Tanh (image)\n also = Relu (unread)\n j = Concat <axis = 1> (image)\n v = Relu (j)", "",
        ["Relu", "Resize"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_onnxruntime_leaves_is_brought_to_the_known_forms(tmp_path: Path, case: str) -> None:
    body, stored, wanted = CASES[case]
    assert kinds(prepared_text(tmp_path, body, stored)[1]) == wanted


def test_what_only_sizes_determine_is_no_factor(tmp_path: Path) -> None:
    body = """size = Shape (image)
    most = Max (size, one)
    twice = Mul (most, one)
    v = Reshape (image, twice)"""
    prepared_text(tmp_path, body, ", int64 one = {1}")


# Every loop ends -------------------------------------------------------------------------------------------


def test_nodes_of_one_name_and_of_none_all_get_names_of_their_own(tmp_path: Path) -> None:
    body = "\n".join(f"t{i + 1} = Tanh (t{i})" for i in range(300)) + "\n v = Relu (t300)"
    model, _ = prepared_text(tmp_path, body.replace("(t0)", "(image)"))
    for i, node in enumerate(model.graph.node):
        node.name = ("same", "same_1", "")[i % 3]
    onnx.save(model, tmp_path / "alike.onnx")
    names = [node.name for node in read_float_model(tmp_path / "alike.onnx", "0..1").model.graph.node]
    assert len(names) == len(set(names)) == 302
    assert all(names)
    assert {"same", "same_1", "same_2"} < set(names)


def test_many_factors_behind_many_clamps_all_find_their_places(tmp_path: Path) -> None:
    lines, last = ["t0 = Conv (image, k)"], "t0"
    for i in range(12):
        lines += [f"a{i} = Max ({last}, low)", f"b{i} = Min (a{i}, high)", f"m{i} = Mul (b{i}, f)"]
        last = f"m{i}"
    stored = ", float low = {-9}, float high = {90}, float f = {0.9}, float[3, 3, 1, 1] k"
    _, network = prepared_text(tmp_path, "\n".join(lines) + f"\n v = Relu ({last})", stored)
    assert "Mul" not in kinds(network)


def test_a_long_row_of_nodes_that_nobody_reads_goes_at_once() -> None:
    lines = "\n".join(f"t{i + 1} = Tanh (t{i})" for i in range(3000))
    graph = text_model(
        f"net (float[n] t0) => (float[n] out) <float[4] c> {{ {lines}\n out = Relu (t0) }}"
    ).graph
    assert preparation.standard_forms.unread_nodes_removed(graph)
    assert [node.op_type for node in graph.node] == ["Relu"]
    assert not graph.initializer
    assert not preparation.standard_forms.unread_nodes_removed(graph)


def calling(functions: str) -> str:
    return f"""<ir_version: 10, opset_import: ["" : 21, "f" : 1]>
net (float[n, 3, h, w] image) => (float[n, 3, y, x] out) <float[4] s = {{1, 1, 2, 2}}>
{{
    v = f.f0 (image)
    out = Resize <mode = "nearest"> (v, , s)
}}
{functions}"""


def function(name: str, body: str) -> str:
    return f'<domain : "f", opset_import : ["" : 21, "f" : 1]> {name} (x) => (y) {{ {body} }}\n'


def test_functions_of_a_file_are_taken_in(tmp_path: Path) -> None:
    text = calling(function("f0", "z = f.f1 (x)\n y = Relu (z)") + function("f1", "y = Tanh (x)"))
    onnx.save(onnx.parser.parse_model(text), tmp_path / "network.onnx")
    assert kinds(read_float_model(tmp_path / "network.onnx", "0..1")) == ["Tanh", "Relu", "Resize"]


@pytest.mark.parametrize("what", ["each calls the next ten times", "one calls itself"])
def test_functions_that_would_fill_the_memory_are_refused_unread(tmp_path: Path, what: str) -> None:
    if what == "one calls itself":
        text = calling(function("f0", "z = f.f0 (x)\n y = Relu (z)"))
        said = "functions that call each other in a circle"
    else:
        tens = ["x", *(f"z{i}" for i in range(9)), "y"]
        calls = ["\n".join(f"{b} = f.f{n + 1} ({a})" for a, b in pairwise(tens)) for n in range(12)]
        text = calling(
            "".join(function(f"f{n}", body) for n, body in enumerate(calls)) + function("f12", "y = Tanh (x)")
        )
        said = "has more than 20000 operations"
    onnx.save(onnx.parser.parse_model(text), tmp_path / "network.onnx")
    with pytest.raises(ModelError, match=said):
        read_float_model(tmp_path / "network.onnx")


def test_the_same_file_is_prepared_to_the_same_bytes(tmp_path: Path) -> None:
    path = export(every_operation(), tmp_path / "network.onnx")
    first, second = (read_float_model(path, "0..1").model.SerializeToString(deterministic=True) for _ in "12")
    assert first == second


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("c = Conv (image, k) v = Sub (image, c)", ["Conv", "Add"]),
        ("c = Conv (image, l) d = DepthToSpace <blocksize = 2> (c) e = Resize (image, , s) v = Sub (e, d)",
         ["Conv", "DepthToSpace", "Resize", "Add"]),
        ("c = Conv (image, k) d = Relu (c) v = Sub (d, c)", ["Conv", "Relu", "Sub"]),
    ],
)  # fmt: skip
def test_a_residual_that_is_taken_off_is_one_that_is_added(
    tmp_path: Path, body: str, wanted: list[str]
) -> None:
    _, network = prepared_text(tmp_path, body, ", float[3, 3, 1, 1] k, float[12, 3, 1, 1] l")
    assert kinds(network) == [*wanted, "Resize"]
