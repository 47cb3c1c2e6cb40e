"""Damaged files are read or refused by an error of ours; nothing of them crashes, hangs, bursts or runs.

`benchmarks/fuzz.py` is the long run (docs/fuzzing.md). What it found has a test here or in
`test_fuzz_states.py`, with the least file.
"""

import io
import os
import struct
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import pytest
import torch

from qnas.errors import LONGEST, CheckpointError, ModelError
from qnas.export.from_qdq.reader import integer_network_of
from qnas.export.integers import integer_network
from qnas.export.to_tflite.writer import write_tflite
from qnas.integer.nodes import Add, DepthToSpace
from qnas.network.architecture import Architecture
from qnas.network.lowering import uniform_layers
from qnas.onnx.cost import model_cost
from qnas.onnx.shapes import infer_shapes
from qnas.testing import fuzzing
from qnas.testing.fuzz_readers import READERS
from qnas.testing.fuzzing import damaged_file, fuzz
from qnas.testing.mutations import SENTINEL
from qnas.testing.qdq_text import EYE, READ, WRITE, text_model
from qnas.testing.random_networks import build
from qnas.testing.seed_files import architectures
from qnas.testing.small_networks import conv, grid, image, network, pixels
from qnas.tflite.reader import IDENTIFIER, load_schema, read_tflite
from qnas.tflite.session import LiteRtSession
from qnas.torch.checkpoint import load_found, save_plain

FILES = 40
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12: torch has threads

# Every reader ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_read_or_refused(reader: str) -> None:
    outcomes = list(fuzz(reader, 1, FILES))
    assert [o for o in outcomes if o.failed] == []
    assert [o.index for o in outcomes] == list(range(FILES))
    verdicts = Counter(o.verdict for o in outcomes)
    # The damage is not all of the kind that nothing survives; but of other places for weights, one in 30 is.
    assert verdicts["read"] > 0 or reader == "external"
    assert verdicts["refused"] > FILES / 4


@pytest.mark.parametrize("reader", READERS)
def test_valid_files_are_read(reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []
    for name, data in READERS[reader].seeds().items():
        path = tmp_path / f"file{READERS[reader].suffix}"
        path.write_bytes(data)
        if fuzzing.read_one(reader, 0, path).verdict != "read":
            refused.append(name)
    # A float network is no integer network; the plain genotype is not that of the checkpoint beside it.
    assert refused == {"onnx": ["float"], "found": ["float"], "genotype": ["plain"]}.get(reader, [])


@pytest.mark.parametrize("reader", READERS)
def test_a_file_is_the_same_whenever_it_is_asked_for(reader: str) -> None:
    first = [damaged_file(reader, 0, index) for index in range(6)]
    assert first == [damaged_file(reader, 0, index) for index in range(6)]
    assert first != [damaged_file(reader, 1, index) for index in range(6)]
    assert len(set(first) - set(READERS[reader].seeds().values())) > 3


# The watch over them --------------------------------------------------------------------------------------


def _burn(path: Path) -> None:
    while True:
        pass


def _fill(path: Path) -> None:
    np.ones(1 << 24)  # float64: 128 MiB


def _refuse_for_want_of_memory(path: Path) -> None:
    try:
        np.zeros(1 << 50)
    except MemoryError as error:
        raise ModelError("it is damaged: export it again") from error


def _two_lines(path: Path) -> None:
    error = ModelError("")
    error.args = ("one\ntwo",)
    raise error


def _key_error(path: Path) -> None:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("read", "verdict"),
    [
        (lambda path: os.abort(), "crash, SIGABRT"),
        (lambda path: os._exit(3), "exit 3"),
        (_burn, "hang"),
        (lambda path: time.sleep(100), "hang"),
        (_fill, "out of memory"),
        (_refuse_for_want_of_memory, "out of memory"),
        (lambda path: os.system(f"touch {SENTINEL}"), "executed"),
        (_key_error, "not an error of ours"),
        (_two_lines, "an error of more than one short line"),
    ],
)
def test_what_a_reader_must_not_do_is_seen(
    read: Callable[[Path], object], verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second(path: Path) -> None:
        if path.read_bytes() == damaged_file("architecture", 0, 1):
            read(path)

    reader = replace(
        READERS["architecture"], read=second, seconds=0.5 if read is _burn else 10, gigabytes=1 / 16
    )
    monkeypatch.setitem(READERS, "architecture", reader)
    if verdict == "hang":
        monkeypatch.setattr(fuzzing, "WALL_SECONDS", 5)
    assert [o.verdict for o in fuzz("architecture", 0, 3)] == ["read", verdict, "read"]


# What was found: found.pt ---------------------------------------------------------------------------------


def _found_file() -> bytes:
    return READERS["found"].seeds()["basic"]


def test_an_archive_said_to_lie_on_several_disks_is_refused(tmp_path: Path) -> None:
    data = bytearray(_found_file())
    end = data.rindex(b"PK\5\6")
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 7)  # of 7 disks
    (tmp_path / "found.pt").write_bytes(data[:end] + locator + data[end:])
    with pytest.raises(CheckpointError, match="is truncated or no PyTorch checkpoint"):
        load_found(tmp_path / "found.pt")


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "found.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(CheckpointError, match="is compressed, which no checkpoint is"):
        load_found(tmp_path / "found.pt")


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(_found_file())) as source:
        pickled = source.read("archive/data.pkl") if "archive/data.pkl" in source.namelist() else b"x" * 4096
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.filelist *= 5  # five names for one place in the file
    (tmp_path / "found.pt").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="is compressed, which no checkpoint is"):
        load_found(tmp_path / "found.pt")


def test_more_weights_than_fit_into_the_file_are_refused_before_they_are_made(tmp_path: Path) -> None:
    draft = Architecture("basic", 512, 64, 2, {})
    huge = replace(draft, layers=uniform_layers(draft, "growth4_9x9", 8))  # 130 GB
    path = tmp_path / "found.pt"
    document = {"format": "qnas-found", "version": 1, "architecture": huge.to_document(), "state_dict": {}}
    save_plain(path, document, force=True)
    with pytest.raises(CheckpointError, match=r"too short for the \d+ weights of its architecture"):
        load_found(path)


def test_a_tensor_in_place_of_a_number_is_shown_on_one_line(tmp_path: Path) -> None:
    architecture = {**architectures()["basic"].to_document(), "channels": torch.ones(30, 30)}
    path = tmp_path / "found.pt"
    save_plain(path, {"format": "qnas-found", "version": 1, "architecture": architecture}, force=True)
    with pytest.raises(CheckpointError, match="channels is tensor") as caught:
        load_found(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("key", ["format", "version"])
def test_a_tensor_in_place_of_the_version_is_refused(key: str, tmp_path: Path) -> None:
    document = {"format": "qnas-found", "version": 1, key: torch.ones(2)}
    save_plain(tmp_path / "found.pt", document, force=True)
    with pytest.raises(CheckpointError, match=r"not a qnas-found file|has version tensor"):
        load_found(tmp_path / "found.pt")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("head.0.weight_scale", 1e38, "head.0 has a scale of 9"),
        ("head.1.grid.step", 1e36, "head.1.grid has a scale of 1"),
        ("body.0.norm.running_var", -1.0, "body.0.norm has no finite weights"),
        ("head.0.bias", torch.nn.Parameter(torch.zeros(3)), None),
    ],
)
def test_finite_numbers_that_no_integer_network_holds_are_refused_without_a_warning(
    name: str, value: Any, said: str | None, tmp_path: Path
) -> None:
    found = build(architectures()["basic"])
    state = found.network.state_dict()
    state[name] = torch.full_like(state[name], value) if isinstance(value, float) else value
    document = {
        "format": "qnas-found", "version": 1, "architecture": found.architecture.to_document(),
        "state_dict": dict(state), "training": {},
    }  # fmt: skip
    save_plain(tmp_path / "found.pt", document, force=True)
    loaded = load_found(tmp_path / "found.pt")
    if said is None:
        assert integer_network(loaded).nodes
    else:
        with pytest.raises(ModelError, match=said):
            integer_network(loaded)


def test_a_list_that_holds_itself_many_times_is_not_written_out(tmp_path: Path) -> None:
    version: list[Any] = []
    for _ in range(60):
        version = [version, version]
    save_plain(tmp_path / "found.pt", {"format": "qnas-found", "version": version}, force=True)
    with pytest.raises(CheckpointError, match=r"has version \[\["):
        load_found(tmp_path / "found.pt")


def test_a_message_keeps_its_end_and_has_no_control_characters() -> None:
    text = str(ModelError("\x1b[31m" + "a" * 5000 + "\nexport it again"))
    assert len(text) == LONGEST
    assert text.startswith("?[31maaa")
    assert text.endswith("a export it again")


# What was found: ONNX -------------------------------------------------------------------------------------


def test_an_attribute_of_a_function_that_is_not_there_is_refused() -> None:
    model = text_model(f"{READ} {EYE} y = Conv<strides = [1, 1]>(x, w) {WRITE}")
    (strides,) = next(node for node in model.graph.node if node.op_type == "Conv").attribute
    strides.ref_attr_name = "x"
    with pytest.raises(ModelError, match="has an attribute of a function around it: inline it"):
        integer_network_of(model, "net")


def test_a_constant_of_another_size_than_it_says_is_refused_by_the_cost(tmp_path: Path) -> None:
    model = text_model(f"{READ} {EYE} y = Conv(x, w) {WRITE}")
    model.graph.initializer[0].raw_data += b"\0"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx is damaged \(ValueError\): export it again"):
        model_cost(tmp_path / "model.onnx", {"image": (1, 3, 4, 4)})


@pytest.mark.parametrize("padding", ["Pad (image, p)", "Pad (image, q)"])
def test_columns_without_end_are_refused_before_inference_counts_them(padding: str) -> None:
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 21]>
        net (float[1, 3, 4, 4] image) => (int64[n] twice)
        <int64[8] p = {{0, 0, 0, 1000000000000, 0, 0, 0, 0}}, int64[8] q = {{0, 0, 0, 2, 0, 0, 0, 0}},
         int64 zero = {{0}}, int64 one = {{1}}, int64 two = {{2}}> {{
        wide = {padding} size = Shape <start = 3> (wide) columns = Squeeze (size)
        all = Range (zero, columns, one) twice = Mul (all, two) }}""")
    if padding.endswith("p)"):
        with pytest.raises(ModelError, match="tensor 'wide' is 1000000000004 long"):
            infer_shapes(model, {})
    else:
        found = infer_shapes(model, {})
        assert found.of("all") == (6,)
        assert "twice" in found.derived


def test_a_range_without_end_is_not_counted() -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
        net (float[1, 3, 4, 4] image) => (int64[n] all)
        <int64[1] huge = {1000000000000}, int64 zero = {0}, int64 one = {1}> {
        size = Shape <start = 3> (image) far = Mul (size, huge) end = Squeeze (far)
        all = Range (zero, end, one) }""")
    with pytest.raises(ModelError, match="tensor 'all' is 4000000000000 long"):
        infer_shapes(model, {})


# What was found: LiteRT ends the process for these --------------------------------------------------------

Edit = Callable[[Any, dict[str, Any]], None]  # of the graph and its operators by kind
EYE_3 = np.eye(3, dtype=np.int8)
NETWORK = network(
    image(),
    conv("a", "image", np.repeat(EYE_3, 4, axis=0).reshape(12, 3, 1, 1), grid(0.5), scale=64.0),
    conv("b", "a", np.ones((12, 1, 1, 1)), grid(0.5), groups=12),
    Add("c", ("a", "b"), 12, grid(0.5)),
    DepthToSpace("d", ("c",), 3, grid(0.5), 2),
    scale=2,
)


def _edited(edit: Edit) -> bytes:
    """The file of `NETWORK` after `edit` of its graph."""
    schema = load_schema()
    model = schema.ModelT.InitFromPackedBuf(write_tflite(NETWORK, 4, 5).data, 0)
    (graph,) = model.subgraphs
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    operators = {names[model.operatorCodes[each.opcodeIndex].builtinCode]: each for each in graph.operators}
    graph.codes = model.operatorCodes
    edit(graph, operators)
    builder = flatbuffers.Builder(1 << 14)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _no_grid(graph: Any, operators: dict[str, Any]) -> None:
    graph.tensors[operators["ADD"].outputs[0]].quantization = None


def _no_type(graph: Any, operators: dict[str, Any]) -> None:
    written = graph.tensors[operators["ADD"].outputs[0]]
    written.type, written.quantization = load_schema().TensorType.FLOAT32, None


def _no_bias(graph: Any, operators: dict[str, Any]) -> None:
    operators["DEPTHWISE_CONV_2D"].inputs = operators["DEPTHWISE_CONV_2D"].inputs[:2]


def _a_weight_as_input(graph: Any, operators: dict[str, Any]) -> None:
    operators["ADD"].inputs = [operators["ADD"].inputs[0], operators["DEPTHWISE_CONV_2D"].inputs[1]]


def _a_weight_as_output(graph: Any, operators: dict[str, Any]) -> None:
    operators["DEPTHWISE_CONV_2D"].outputs = operators["DEPTHWISE_CONV_2D"].inputs[2:]


def _far_smaller_steps(graph: Any, operators: dict[str, Any]) -> None:
    graph.tensors[operators["ADD"].outputs[0]].quantization.scale = np.float32([1e-9])


def _smallest_steps(graph: Any, operators: dict[str, Any]) -> None:
    graph.tensors[operators["ADD"].outputs[0]].quantization.scale = np.float32([1e-45])


def _an_old_code(graph: Any, operators: dict[str, Any]) -> None:
    """Files of 2020 and before have their codes in another field; LiteRT takes the larger of the two."""
    _no_bias(graph, operators)
    code = operators["DEPTHWISE_CONV_2D"].opcodeIndex
    graph.codes[code].deprecatedBuiltinCode, graph.codes[code].builtinCode = graph.codes[code].builtinCode, 0


def _no_last_operator(graph: Any, operators: dict[str, Any]) -> None:
    del graph.operators[-1]


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (_no_grid, "has a tensor of 0 scales"),
        (_no_type, "has tensors of several types"),
        (_no_bias, "lacks its bias"),
        (_an_old_code, "lacks its bias"),
        (_a_weight_as_input, "has a tensor of 12 scales"),
        (_a_weight_as_output, "a tensor is written twice"),
        (_far_smaller_steps, "writes far smaller steps than it reads"),
        (_smallest_steps, "out of all proportion"),
        (_no_last_operator, "nothing writes its output"),
    ],
)
def test_what_the_runtime_takes_for_granted_is_checked_before_it_runs(edit: Edit, problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        LiteRtSession(_edited(edit))


def test_a_file_without_a_graph_is_refused_before_the_runtime_sees_it() -> None:
    builder = flatbuffers.Builder(64)
    schema = load_schema()
    model = schema.ModelT()
    model.version, model.buffers = 3, [schema.BufferT()]
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    with pytest.raises(ModelError, match="it holds no graph"):
        LiteRtSession(bytes(builder.Output()))


def test_the_file_without_an_edit_runs() -> None:
    session = LiteRtSession(_edited(lambda graph, operators: None))
    assert session.run(pixels(4, 5)).shape == (1, 3, 8, 10)


def test_a_long_name_does_not_make_a_long_message() -> None:
    def name(graph: Any, operators: dict[str, Any]) -> None:
        graph.tensors[0].name, graph.tensors[0].buffer = b"\x1b" * 1990, 999

    with pytest.raises(ModelError, match="has no buffer") as caught:
        read_tflite(_edited(name))
    assert len(str(caught.value)) <= LONGEST
