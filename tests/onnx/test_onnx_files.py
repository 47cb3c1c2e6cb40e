"""What an ONNX file may bring with it, and how much it may ask for, before anything is read or run."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import ModelProto, TensorProto, helper

import qnas
from qnas.calibration.cli import main as calibrate
from qnas.calibration.prepare.float_model import read_float_model
from qnas.errors import ModelError, QnasError
from qnas.export.cli import main as export
from qnas.export.inspect_cli import main as inspect
from qnas.images.files import write_png
from qnas.onnx.cost import model_cost
from qnas.onnx.files import MOST_NODES, external_files, model_bytes, read_model
from qnas.onnx.session import check_model, open_session
from qnas.onnx.shapes import MOST_ELEMENTS, infer_shapes
from qnas.runtime_bench.cli import main as bench
from qnas.runtime_bench.upscale import load_upscaler
from qnas.runtime_bench.upscale_cli import main as upscale
from qnas.testing.text_models import FLOAT_CONV, text_model

HANG = 120  # seconds: what waits for a FIFO waits for ever


@pytest.fixture(autouse=True)
def _an_end_to_all() -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(HANG)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def kept_in(location: str, folder: Path, **place: object) -> Path:
    """A model in `folder` whose first weights, 324 floats, are said to lie at `location`."""
    model = text_model(FLOAT_CONV)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **place}.items():
        tensor.external_data.add(key=key, value=str(value))
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a model, with a secret above it."""
    found = tmp_path / "models"
    found.mkdir()
    np.zeros(324, np.float32).tofile(tmp_path / "secret")
    np.zeros(324, np.float32).tofile(found / "weights")
    return found


# Where weights may lie ------------------------------------------------------------------------------------


def test_weights_beside_and_below_a_model_are_read(folder: Path) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "weights").rename(folder / "deep" / "er" / "weights")
    path = kept_in("deep/er/weights", folder, offset=0, length=1296)
    assert external_files(path) == [folder / "deep" / "er" / "weights"]
    assert read_model(path).graph.initializer[0].raw_data == bytes(1296)
    assert ModelProto.FromString(model_bytes(path)) == read_model(path)
    path = kept_in("deep/er/weights", folder)
    assert read_model(path, external_data=False).graph.initializer[0].external_data
    open_session(path)


def _link(folder: Path) -> str:
    (folder / "link").symlink_to(folder / "weights")
    return "link"


def _linked_folder(folder: Path) -> str:
    (folder / "out").symlink_to(folder.parent)
    return "out/secret"


def _fifo(folder: Path) -> str:
    os.mkfifo(folder / "fifo")
    return "fifo"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (lambda folder: "../secret", "'../secret', which is not beside or below it"),
        (lambda folder: "deep/../../secret", "which is not beside or below it"),
        (lambda folder: str(folder.parent / "secret"), "secret', which is not beside or below it"),
        (lambda folder: "/dev/zero", "'/dev/zero', which is not beside or below it"),
        (lambda folder: "", "'', which is not beside or below it"),
        (lambda folder: "weights\0", "which is not beside or below it"),
        (lambda folder: "gone", "'gone', which is not beside it: copy that file there too"),
        (lambda folder: "a" * 5000, "which is not beside it: copy that file there too"),
        (_link, "link is a link: put the file itself there"),
        (_linked_folder, "out is a link: put the file itself there"),
        (_fifo, "'fifo', which is no regular file"),
        (lambda folder: ".", "which is not beside or below it"),
    ],
)
def test_weights_anywhere_else_are_refused_unread(
    place: Callable[[Path], str], said: str, folder: Path
) -> None:
    path = kept_in(place(folder), folder)
    for read in (lambda: read_model(path, external_data=False), lambda: open_session(path)):
        with pytest.raises(ModelError) as caught:
            read()
        assert said in str(caught.value)


@pytest.mark.parametrize(
    "place",
    [
        {"offset": 4}, {"offset": 1300}, {"length": 1300}, {"offset": -4}, {"offset": "9" * 5000},
        {"offset": "1e3"}, {"offset": "\u0661"}, {"length": 2**63},
    ],
)  # fmt: skip
def test_weights_beyond_the_end_of_their_file_are_refused(place: dict[str, object], folder: Path) -> None:
    path = kept_in("weights", folder, **{"length": 1296} | place)
    with pytest.raises(ModelError, match=r"'weights', beyond its 1296 bytes: copy that file again"):
        read_model(path)


def test_a_file_that_many_tensors_take_whole_is_refused_before_it_fills_the_memory(folder: Path) -> None:
    path = kept_in("weights", folder)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer.extend(
        TensorProto(name=f"w{i}", data_location=TensorProto.EXTERNAL, external_data=tensor.external_data)
        for i, tensor in enumerate([model.graph.initializer[0]] * 1000)
    )
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="reads other files several times over"):
        read_model(path)


@pytest.mark.parametrize("where", ["attribute", "sparse", "branch", "function"])
def test_weights_are_found_wherever_they_stand_in_a_model(where: str, folder: Path) -> None:
    model = onnx.load(kept_in("../secret", folder), load_external_data=False)
    tensor = model.graph.initializer.pop(0)
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    inner = helper.make_graph([constant], "inner", [], [])
    match where:
        case "attribute":
            model.graph.node.append(constant)
        case "sparse":
            model.graph.sparse_initializer.add().values.CopyFrom(tensor)
        case "branch":
            model.graph.node.append(helper.make_node("If", ["c"], [], then_branch=inner, else_branch=inner))
        case "function":
            model.functions.add(name="f", domain="house").node.append(constant)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="not beside or below it"):
        external_files(folder / "model.onnx")


@pytest.fixture
def stealing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In its folder, a model that names a FIFO above: whoever opens that waits for ever."""
    os.mkfifo(folder.parent / "fifo")
    path = kept_in("../fifo", folder)
    (folder / "copy.onnx").write_bytes(path.read_bytes())
    (folder / "images").mkdir()
    for name in ("a", "b"):
        picture = np.random.default_rng(ord(name)).integers(0, 255, (64, 64, 3), np.uint8)
        write_png(folder / "images" / f"{name}.png", picture)
    (folder / "table.json").write_text(
        '{"format": "qnas-latency-model", "version": 1, "device": "cpu", "threads": 1, "environment": {},'
        '"node_ns": 0, "run_ns": 0, "accuracy": null, "kernels": [], "operations": []}'
    )
    script = folder / "ssh"
    script.write_text(f"#!/bin/sh\ntouch {folder}/called\n")
    script.chmod(0o755)
    monkeypatch.setenv("QNAS_SSH", str(script))
    monkeypatch.chdir(folder)
    return path


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (bench, "model.onnx --device ssh:H/cpu"),
        (bench, "model.onnx --device adb:S/cpu --adb-binary ssh"),
        (bench, "model.onnx"),
        (bench, "cost model.onnx"),
        (bench, "gate model.onnx --against copy.onnx"),
        (bench, "gate model.onnx --against copy.onnx --device ssh:H/cpu"),
        (bench, "predict model.onnx --model table.json"),
        (inspect, "model.onnx"),
        (export, "model.onnx --images images"),
        (calibrate, "model.onnx images"),
        (upscale, "model.onnx images/a.png -o large.png"),
    ],
)
def test_no_command_opens_or_sends_what_lies_above_a_model(command: Any, words: str, stealing: Path) -> None:
    result = CliRunner().invoke(command, words.split())
    assert (result.exit_code, "which is not beside or below it" in result.output) == (2, True), result.output
    assert not Path("called").exists()
    assert not {"large.png", "model.calibration.json", "model.qnas.onnx"} & set(os.listdir())


@pytest.mark.parametrize(
    "call",
    [
        lambda: qnas.load("model.onnx"),
        lambda: qnas.calibrate("model.onnx", "images"),
        lambda: qnas.export("model.onnx", images=Path("images")),
        lambda: qnas.check("model.onnx", "copy.onnx", check=Path("images")),
        lambda: qnas.benchmark("model.onnx"),
        lambda: qnas.gate("model.onnx", "copy.onnx"),
        lambda: qnas.upscale("model.onnx", np.zeros((8, 8, 3), np.uint8)),
    ],
)
def test_no_function_of_the_api_opens_it_either(call: Callable[[], object], stealing: Path) -> None:
    with pytest.raises(QnasError, match="which is not beside or below it"):
        call()


def test_a_model_that_is_a_fifo_or_a_folder_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.onnx")
    (tmp_path / "folder.onnx").mkdir()
    for path in (tmp_path / "fifo.onnx", tmp_path / "folder.onnx", Path("/dev/zero")):
        for read in (read_model, open_session, external_files):
            with pytest.raises(ModelError, match=r"is not a file: name an \.onnx model"):
                read(path)


# How much a model may ask for -----------------------------------------------------------------------------


def saved(tmp_path: Path, model: ModelProto) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def nodes(count: int) -> ModelProto:
    model = text_model("net (float[1, 3, h, w] image) => (float[1, 3, y, x] t0) { t0 = Relu (image) }")
    for i in range(count - 1):
        model.graph.node.add(op_type="Relu", input=[f"t{i}"], output=[f"t{i + 1}"])
    model.graph.output[0].name = f"t{count - 1}"
    return model


def test_the_nodes_of_a_model_have_a_bound(tmp_path: Path) -> None:
    assert len(read_model(saved(tmp_path, nodes(MOST_NODES))).graph.node) == MOST_NODES
    with pytest.raises(ModelError, match="has more than 20000 operations: export a smaller network"):
        read_model(saved(tmp_path, nodes(MOST_NODES + 1)))


@pytest.mark.parametrize("inside", [False, True])
def test_functions_that_call_one_another_twice_are_counted_before_they_are_inlined(
    inside: bool, tmp_path: Path
) -> None:
    def function(i: int, body: str) -> str:
        return f'<domain : "f", opset_import : ["" : 21, "f" : 1]> f{i} (x) => (y) {{ {body} }}\n'

    calls = [f"z = f.f{i + 1} (x)\n y = f.f{i + 1} (z)" for i in range(30)]
    bodies = "".join(map(function, range(31), [*calls, "y = Neg (x)"]))
    call = "out = f.f0 (image)"
    if inside:
        branch = "() => (float[n, 3, h, w] o) { o = f.f0 (image) }"
        call = f"out = If (c) <then_branch = a {branch}, else_branch = b {branch}>"
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21, "f" : 1]>'
        f"net (float[n, 3, h, w] image, bool c) => (float[n, 3, y, x] out) {{ {call} }} {bodies}"
    )
    for read in (read_model, model_cost, load_upscaler, read_float_model):
        with pytest.raises(ModelError, match="has more than 20000 operations"):
            read(saved(tmp_path, model))


HUGE = {
    "outer product": "p = Reshape (r, column) q = Reshape (r, row) k = Mul (p, q)",
    "ConstantOfShape": "k = ConstantOfShape (huge)",
    "Expand": "k = Expand (one, huge)",
    "Tile": "x = Reshape (one, row) k = Tile (x, huge)",
    "a range of shapes": "s = Shape <start = 2, end = 3> (image) m = Mul (s, many) e = Squeeze (m) "
    "t = Range (zero, e, step) p = Reshape (t, column) q = Reshape (t, row) k = Mul (p, q)",
    "doubled": "x0 = Reshape (r, row) "
    + " ".join(f"x{i + 1} = Concat <axis = 0> (x{i}, x{i})" for i in range(16)) + " k = Identity (x16)",
    "many": "x = ConstantOfShape (large) " + " ".join(f"y{i} = Neg (x)" for i in range(9)) + " k = Neg (x)",
    "sparse": "k = Constant <sparse_value = value> ()",
}  # fmt: skip


def asking(what: str) -> ModelProto:
    """A model of few bytes whose constants are of more than 10^10 values, or a few times 10^7."""
    body = HUGE[what]
    if what == "sparse":
        body = "k = Identity (dense)"
    model = text_model(
        f"""net (float[1, 3, h, w] image) => (float[1, 3, y, x] out)
        <int64 zero = {{0}}, int64 end = {{100000}}, int64 step = {{1}}, int64[2] huge = {{100000, 100000}},
         int64[2] large = {{4000, 4000}}, int64[2] column = {{-1, 1}}, int64[2] row = {{1, -1}},
         float one = {{1}}, int64[1] many = {{3000}}>
        {{ r = Range (zero, end, step) {body} m = ReduceMax <keepdims = 0> (k) f = Cast <to = 1> (m)
           out = Add (image, f) }}"""
    )
    if what == "sparse":
        sparse = model.graph.sparse_initializer.add(dims=[100000, 100000])
        sparse.values.CopyFrom(helper.make_tensor("dense", TensorProto.FLOAT, [1], [1]))
        sparse.indices.CopyFrom(helper.make_tensor("places", TensorProto.INT64, [1], [5]))
    return model


@pytest.mark.parametrize("what", HUGE)
def test_more_values_than_memory_holds_are_refused_before_they_are_computed(
    what: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, asking(what))
    said = f"more than {MOST_ELEMENTS} values follow from constants and shapes alone"
    with pytest.raises(ModelError, match=said):
        model_cost(path, {"image": (1, 3, 48, 80)})
    if "image" not in HUGE[what]:  # a runtime would compute these as soon as it has the model
        for read in (check_model, open_session, load_upscaler, read_float_model):
            with pytest.raises(ModelError, match=said):
                read(path)


def test_a_loop_over_sizes_is_not_run() -> None:
    body = "b (int64 i, bool c, int64 a) => (bool d, int64 o) { d = Identity (c) o = Add (a, i) }"
    model = text_model(
        f"""net (float[1, 3, h, w] image) => (int64 out) <int64 many = {{1000000000}}, bool yes = {{1}}>
        {{ size = Size (image) n = Mul (size, many) out = Loop <body = {body}> (n, yes, size) }}"""
    )
    found = infer_shapes(model, {"image": (1, 3, 4, 4)})
    assert found.derived.keys() == {"size", "n"}


def test_a_number_of_bits_with_thousands_of_digits_is_refused() -> None:
    model = text_model("net (float[1, 3, h, w] image) => (float[1, 3, y, x] out) { out = Relu (image) }")
    model.graph.node[0].metadata_props.add(key="qnas.bits", value="9" * 5000)
    with pytest.raises(ModelError, match=r"metadata qnas\.bits is '9+', not a number of bits"):
        model_cost(model, {"image": (1, 3, 4, 4)})


def test_only_timed_sessions_plan_shared_memory_which_takes_quadratic_time(tmp_path: Path) -> None:
    path = saved(tmp_path, text_model(FLOAT_CONV))
    assert not open_session(path).get_session_options().enable_mem_reuse
    assert open_session(path, timed=True).get_session_options().enable_mem_reuse
