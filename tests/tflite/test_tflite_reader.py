"""Reading .tflite files: every form that is read, and nothing but our own error for what is damaged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.errors import ModelError
from qnas.export.inspect import inspect
from qnas.export.inspection.inspection import Request
from qnas.export.inspection.layer_rows import LayerRow
from qnas.export.inspection.tflite_rows import tflite_rows
from qnas.export.to_tflite.file import Grid, TfliteFile
from qnas.tflite.reader import load_schema, read_tflite

PIXELS = Grid(np.float32(2.0**-8), -128)
ONE = Grid(np.ones(1, np.float32), 0)
Edit = Callable[[TfliteFile], None]


def one_convolution(edit: Edit = lambda file: None, file: TfliteFile | None = None) -> bytes:
    """Tensors 0 image, 1 weight, 2 bias, 3 end, and the 1x1 convolution between them."""
    file = file or TfliteFile()
    image = file.tensor("image", (1, 4, 4, 3), grid=PIXELS)
    weight = file.constant("weight", np.int8([[[[1, -2, 3]]], [[[-4, 5, -6]]]]), ONE)
    bias = file.constant("bias", np.int32([7, 8]))
    end = file.tensor("end", (1, 4, 4, 2), grid=Grid(np.float32(0.5), 0))
    file.operator("CONV_2D", (image, weight, bias), end, strideH=1, strideW=1)
    edit(file)
    return file.pack("net", image, end, {})


def rows_of(data: bytes) -> Sequence[LayerRow]:
    return tflite_rows(read_tflite(data))[0]


def test_a_convolution_is_read_with_its_weights_and_its_grids() -> None:
    (row,) = rows_of(one_convolution())
    assert (row.name, row.operation, row.shape) == ("end", "conv 1x1", (2, 4, 4))
    assert (row.weight_bits, row.activation_bits) == (4, 8)  # -6 .. 5
    assert (row.macs, row.weight_bytes, row.bias_bytes) == (6 * 16, 6, 8)
    assert [level for level in range(-8, 8) if row.weight_counts[level + 8]] == [-6, -4, -2, 1, 3, 5]
    assert row.accumulator_bits == 13  # 10 * 255 - 8 = 2542 needs 12 bits and a sign
    assert row.output is not None
    assert (float(row.output.scale), row.output.low, row.output.high) == (0.5, -128, 127)


def test_four_bit_weights_are_unpacked_lower_half_first() -> None:
    def packed(file: TfliteFile) -> None:
        data = bytes([0xE1, 0xC3, 0xA5])  # 1, -2; 3, -4; 5, -6
        file.operators[0].inputs[1] = file.tensor("packed", (2, 1, 1, 3), "INT4", ONE, data=data)

    (row,), (same,) = rows_of(one_convolution(packed)), rows_of(one_convolution())
    assert row.weight_counts == same.weight_counts
    assert (row.weight_bytes, same.weight_bytes) == (3, 6)


def test_float_weights_have_costs_and_no_levels() -> None:
    def floats(file: TfliteFile) -> None:
        data = np.ones((2, 1, 1, 3), np.float32).tobytes()
        file.operators[0].inputs[1] = file.tensor("float", (2, 1, 1, 3), "FLOAT32", data=data)

    (row,) = rows_of(one_convolution(floats))
    assert (row.weight_bits, row.weight_bytes, row.weight_counts) == (32, 24, ())


def test_a_dense_layer_and_a_pool_are_said_in_words() -> None:
    def more(file: TfliteFile) -> None:
        pooled = file.tensor("pooled", (1, 1, 1, 2), grid=Grid(np.float32(0.5), 0))
        sizes = {"filterHeight": 3, "filterWidth": 2, "strideH": 2, "strideW": 2}
        file.operator("MAX_POOL_2D", (3,), pooled, **sizes)
        dense = file.constant("dense", np.full((5, 2), 100, np.int8), ONE)
        file.operator("FULLY_CONNECTED", (pooled, dense), file.tensor("out", (1, 5), grid=ONE))

    _, pool, dense = rows_of(one_convolution(more))
    assert (pool.operation, pool.macs) == ("max pool 3x2 stride 2", 0)
    assert (dense.operation, dense.shape, dense.macs) == ("fully connected", (1, 5), 10)
    assert dense.unused_levels == 255


def test_operations_whose_cost_is_not_known_are_named(tmp_path: Path) -> None:
    class Foreign(TfliteFile):
        def _code(self, op: Any, version: int) -> Any:
            code = self.schema.OperatorCodeT()
            code.builtinCode, code.customCode = self.schema.BuiltinOperator.CUSTOM, "Mine"
            return code

    path = tmp_path / "foreign.tflite"
    path.write_bytes(one_convolution(file=Foreign()))
    inspection = inspect(path, Request(8, 8))
    assert inspection.notes == ("not in MACs: CUSTOM Mine",)
    assert inspection.macs == 0


def set_tensor(index: int, **fields: Any) -> Edit:
    def edit(file: TfliteFile) -> None:
        for name, value in fields.items():
            setattr(file.tensors[index], name, value)

    return edit


def set_grid(index: int, **fields: Any) -> Edit:
    def edit(file: TfliteFile) -> None:
        for name, value in fields.items():
            setattr(file.tensors[index].quantization, name, value)

    return edit


def set_operator(**fields: Any) -> Edit:
    def edit(file: TfliteFile) -> None:
        for name, value in fields.items():
            setattr(file.operators[0], name, value)

    return edit


@dataclass(frozen=True)
class NoBytes:
    """A buffer with bytes, of which there are none: LiteRT takes its tensor for a constant."""

    data: bytes = b""

    def Pack(self, builder: Any) -> int:
        builder.StartVector(1, 0, 1)
        vector = builder.EndVector()
        builder.StartObject(3)
        builder.PrependUOffsetTRelativeSlot(0, vector, 0)
        return int(builder.EndObject())


def no_bytes(file: TfliteFile) -> None:
    file.tensors[0].buffer = len(file.buffers)
    file.buffers.append(NoBytes())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (set_tensor(0, name="x" * 3000), "a name of 3000 bytes"),
        (set_tensor(0, shape=[1] * 9), "an impossible shape of tensor 'image'"),
        (set_tensor(0, shape=[1, -4, 4, 3]), "an impossible shape of tensor 'image'"),
        (set_tensor(0, shape=[2**31 - 1] * 3), "an impossible shape of tensor 'image'"),
        (set_tensor(0, type=99), "an unknown type of tensor 'image'"),
        (set_tensor(0, buffer=99), "tensor 'image' has no buffer"),
        (no_bytes, r"tensor 'image' of shape \(1, 4, 4, 3\) has 0 bytes"),
        (set_tensor(2, shape=[3]), r"tensor 'bias' of shape \(3,\) has 8 bytes"),
        (set_grid(1, scale=[float("nan")]), "the quantization of tensor 'weight' does not fit it"),
        (set_grid(1, scale=[0.0]), "the quantization of tensor 'weight' does not fit it"),
        (set_grid(1, scale=[1.0] * 3, zeroPoint=[0] * 3), "the quantization of tensor 'weight'"),
        (set_grid(1, scale=[1.0] * 2, zeroPoint=[0]), "the quantization of tensor 'weight'"),
        (set_operator(inputs=[0, 99, 2]), "a tensor beyond the 4 that there are"),
        (set_operator(inputs=[0, -2, 2]), "a tensor beyond the 4 that there are"),
        (set_operator(outputs=[]), "CONV_2D writes nothing"),
        (set_operator(opcodeIndex=5), "an operation beyond the 1 that there are"),
        (set_grid(0, zeroPoint=[-129]), "tensor 'image' has the zero point -129, beyond -128 .. 127"),
        (set_operator(inputs=[0, -1, 2]), "CONV_2D 'end' lacks an input"),
        (
            set_operator(inputs=[0, 2, 2]),
            r"CONV_2D 'end' reads \[1, 4, 4, 3\] and \[2\], which do not fit it",
        ),
        (set_operator(inputs=[0]), "CONV_2D 'end' lacks an input"),
        (lambda file: file.operators.clear(), "holds no operation"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_its_place(edit: Edit, said: str, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(one_convolution(edit))
    with pytest.raises(ModelError, match=rf"model\.tflite.*{said}.*export it again"):
        inspect(path, Request(8, 8))


def test_weights_without_a_value_are_refused() -> None:
    def empty(file: TfliteFile) -> None:
        file.operators[0].inputs[1] = file.tensor("empty", (0, 1, 1, 3), grid=ONE)

    with pytest.raises(ModelError, match=r"reads .* and \[0, 1, 1, 3\], which do not fit it"):
        rows_of(one_convolution(empty))


@pytest.mark.parametrize(
    "edit",
    [
        set_grid(1, zeroPoint=[3]),  # no symmetric grid
        set_tensor(2, type=load_schema().TensorType.UINT32),  # no bias that is read
        set_tensor(2, type=load_schema().TensorType.FLOAT32),  # no int32 bias
        set_tensor(3, quantization=None),  # no integer output
        set_operator(inputs=[0, 3, 2]),  # weights that are computed
    ],
)
def test_weights_that_are_no_plain_integers_have_no_levels(edit: Edit) -> None:
    (row,) = rows_of(one_convolution(edit))
    assert row.macs > 0
    assert (row.weight_counts, row.accumulator_bits) == ((), None)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(ModelError, match=r"nowhere\.tflite cannot be read"):
        read_tflite(Path("nowhere.tflite"))


def test_a_fused_relu6_makes_as_many_levels_as_fit_below_six() -> None:
    """6 / 0.4 = 15 steps above the zero point: 4 bits, though the type says 8."""
    file = TfliteFile()
    image = file.tensor("image", (1, 4, 4, 3), grid=Grid(np.float32(2.0**-8), -128))
    weight = file.constant(
        "weight", np.full((2, 1, 1, 3), 100, np.int8), Grid(np.full(2, 0.5, np.float32), 0)
    )
    hidden = file.tensor("hidden", (1, 4, 4, 2), grid=Grid(np.float32(0.4), -128))
    relu6 = file.schema.ActivationFunctionType.RELU6
    file.operator("CONV_2D", (image, weight), hidden, fusedActivationFunction=relu6, strideH=1, strideW=1)
    end = file.tensor("end", (1, 4, 4, 1), grid=Grid(np.float32(0.1), 0))
    kernel = file.constant("kernel", np.full((1, 1, 1, 2), -3, np.int8), Grid(np.ones(1, np.float32), 0))
    file.operator("CONV_2D", (hidden, kernel), end, strideH=1, strideW=1)
    rows, uncounted = tflite_rows(read_tflite(file.pack("net", image, end, {})))
    assert [row.operation for row in rows] == ["conv 1x1 relu6", "conv 1x1"]
    assert [(row.weight_bits, row.activation_bits) for row in rows] == [(8, 8), (4, 4)]
    assert rows[0].macs == 6 * 16
    assert rows[1].accumulator_bits == 8  # 2 * 3 * 15 = 90
    assert uncounted == ()


SMALL_FILE = one_convolution()


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(SMALL_FILE) - 1), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(8, len(SMALL_FILE)),
)
def test_a_damaged_tflite_file_is_read_or_refused_but_nothing_else(
    edits: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(SMALL_FILE)
    for position, value in edits:
        data[position] = value
    try:
        rows, _ = tflite_rows(read_tflite(bytes(data[:length])))
    except ModelError:
        return
    assert all(row.macs >= 0 for row in rows)


def test_a_tflite_list_longer_than_its_file_is_refused_before_it_is_walked() -> None:
    table_of_graph = load_schema().Model.GetRootAs(SMALL_FILE).Subgraphs(0)._tab
    tensors = table_of_graph.Vector(table_of_graph.Offset(4))  # the first field; its length stands before it
    data = bytearray(SMALL_FILE)
    assert int.from_bytes(data[tensors - 4 : tensors], "little") < 20
    data[tensors - 4 : tensors] = (2**31).to_bytes(4, "little")
    with pytest.raises(ModelError, match="a list of 2147483648 entries"):
        read_tflite(bytes(data))


def test_a_few_bytes_that_are_named_often_are_refused_before_they_fill_the_memory() -> None:
    import flatbuffers

    schema, builder = load_schema(), flatbuffers.Builder(1 << 17)
    data, name = builder.CreateByteVector(bytes(1 << 16)), builder.CreateString("x")
    schema.BufferStart(builder)
    schema.BufferAddData(builder, data)
    buffer = schema.BufferEnd(builder)
    schema.MetadataStart(builder)
    schema.MetadataAddName(builder, name)
    schema.MetadataAddBuffer(builder, 1)
    entry = schema.MetadataEnd(builder)
    schema.SubGraphStart(builder)
    graph = schema.SubGraphEnd(builder)
    buffers, graphs, metadata = (
        vector_of(builder, each) for each in ([buffer, buffer], [graph], [entry] * 10_000)
    )  # 650 MB of metadata
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    schema.ModelAddBuffers(builder, buffers)
    schema.ModelAddMetadata(builder, metadata)
    builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")
    with pytest.raises(ModelError, match="bytes are named more than 16 times over"):
        read_tflite(bytes(builder.Output()))


def vector_of(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for each in reversed(offsets):
        builder.PrependUOffsetTRelative(each)
    vector: int = builder.EndVector()
    return vector


def test_a_list_of_more_tensors_than_a_network_has_is_refused() -> None:
    file = TfliteFile()
    for i in range(20_001):
        file.tensor(f"{i}", (1,))
    with pytest.raises(ModelError, match="a list of 20005 entries, more than 20000"):
        read_tflite(one_convolution(file=file))
