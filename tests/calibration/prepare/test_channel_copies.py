"""Channels that are copied, picked or put in order by many operations are so by one Concat or Gather."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from qnas.calibration.prepare.channel_copies import channel_copies
from qnas.calibration.prepare.preparation import simplified
from qnas.calibration.prepare.sr_shape import SrShape
from qnas.calibration.prepare.standard_forms import unread_nodes_removed
from qnas.onnx.session import open_session
from qnas.testing.sr_modules import conv, export
from qnas.testing.text_models import text_model

SIX = torch.arange(6)
SHAPE = SrShape("nchw", 3, 1, None, (16, 24), ((11, 13), (32, 48)))


class Moving(nn.Module):
    """Six channels, moved, plus 1."""

    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.move = conv(3, 6), move

    def forward(self, x: Tensor) -> Tensor:
        return self.move(self.head(x)) + 1


def rewritten(model: ModelProto, shape: SrShape = SHAPE) -> ModelProto:
    result = ModelProto()
    result.CopyFrom(model)
    if channel_copies(result, shape):
        unread_nodes_removed(result.graph)
    return result


def kinds(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def output(model: ModelProto, height: int, width: int) -> np.ndarray:
    session = open_session(model.SerializeToString(), threads=1)
    image = np.random.default_rng(1).uniform(size=(1, 3, height, width)).astype(np.float32)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])


@pytest.mark.parametrize("size", [None, (16, 24)], ids=["any size", "one size"])
@pytest.mark.parametrize(
    ("move", "kind"),
    [
        (lambda x: torch.repeat_interleave(x, 2, dim=1), "Gather"),
        (lambda x: x.unsqueeze(2).expand(-1, -1, 9, -1, -1).flatten(1, 2), "Gather"),
        (lambda x: x.unflatten(1, (2, 3)).transpose(1, 2).flatten(1, 2), "Gather"),  # a channel shuffle
        (lambda x: x[:, 1:4], "Gather"),
        (lambda x: x.flip(1), "Gather"),
        (lambda x: x.repeat(1, 3, 1, 1), "Concat"),
        (lambda x: x.unsqueeze(1).expand(-1, 2, -1, -1, -1).flatten(1, 2), "Concat"),
    ],
    ids=["interleaved", "expanded", "shuffled", "sliced", "reversed", "repeated", "repeated by expansion"],
)
def test_what_torch_writes_is_one_operation(
    tmp_path: Path, move: Callable[[Tensor], Tensor], kind: str, size: tuple[int, int] | None
) -> None:
    model = simplified(onnx.load(export(Moving(move), tmp_path / "moving.onnx", size=size)))
    shape = SrShape("nchw", 3, 1, size, (16, 24), () if size else SHAPE.others)
    found = rewritten(model, shape)
    assert kinds(found) == ["Conv", kind, "Add"]
    if kind == "Gather":
        rows = numpy_helper.to_array(found.graph.initializer[-1])
        np.testing.assert_array_equal(rows, move(SIX.float().reshape(1, 6, 1, 1)).flatten().numpy())
    for height, width in ((16, 24), *([] if size else [(20, 9)])):
        np.testing.assert_array_equal(output(found, height, width), output(model, height, width))


def test_the_parts_of_a_split_are_picked_one_by_one(tmp_path: Path) -> None:
    def move(x: Tensor) -> Tensor:
        first, second, third = torch.split(x, (1, 2, 3), dim=1)
        return torch.cat([third * 2, second, first], 1)

    model = simplified(onnx.load(export(Moving(move), tmp_path / "moving.onnx")))
    found = rewritten(model)
    assert "Split" in kinds(model)
    assert sorted(kinds(found)) == ["Add", "Concat", "Conv", "Gather", "Gather", "Gather", "Mul"]
    np.testing.assert_array_equal(output(found, 20, 9), output(model, 20, 9))


@pytest.mark.parametrize(
    "body",
    [
        "y = Transpose <perm = [0, 1, 3, 2]> (image)",  # of a square image it has the same size
        "y = Slice (image, one, two, two)",  # rows
        "y = Reshape (image, rows_first)",
        "y = Concat <axis = 1> (image, image)",
        "y = Gather <axis = 1> (image, order)",
    ],
)
def test_what_moves_pixels_and_what_is_one_operation_already_stays(body: str) -> None:
    constants = "int64[1] one = {1}, int64[1] two = {2}, int64[4] rows_first = {0, 8, 48, 8}, "
    model = text_model(f"""
net (float[n, 3, h, w] image) => (float[n, c, y, x] out)
<{constants} int64[3] order = {{2, 0, 1}}, float plus = {{1}}>
{{
    {body}
    out = Add (y, plus)
}}""")
    probe = (16, 8)
    size = probe if "Reshape" in body else None
    assert not channel_copies(
        model, SrShape("nchw", 3, 1, size, probe if size else (16, 16), () if size else SHAPE.others)
    )


def test_a_crop_that_keeps_the_whole_of_one_size_alone_is_no_copy() -> None:
    model = text_model("""
net (float[n, 3, h, w] image) => (float[n, 3, y, x] out)
<int64[1] zero = {0}, int64[1] sixteen = {16}, int64[1] two = {2}, float plus = {1}>
{
    y = Slice (image, zero, sixteen, two)
    out = Add (y, plus)
}""")
    assert not channel_copies(model, SHAPE)


@pytest.mark.parametrize("end", [12, 24, 30, 1080])
def test_a_crop_that_small_or_even_images_pass_whole_is_no_copy(end: int) -> None:
    """As the one of a network that pads to a multiple of 8: rows and columns end where the image did."""
    model = text_model(f"""
net (float[n, 3, h, w] image) => (float[n, 3, y, x] out)
<int64[2] zero = {{0, 0}}, int64[2] ends = {{{end}, {end}}}, int64[2] sides = {{2, 3}}, float plus = {{1}}>
{{
    y = Slice (image, zero, ends, sides)
    out = Add (y, plus)
}}""")
    assert not channel_copies(model, SHAPE)


def test_a_network_that_takes_one_size_and_declares_any_is_left_as_it_is() -> None:
    model = text_model("""
net (float[n, 3, h, w] image) => (float[n, 3, y, x] out)
<int64[4] shape = {1, 3, 16, 24}, float plus = {1}>
{
    y = Reshape (image, shape)
    out = Add (y, plus)
}""")
    assert not channel_copies(model, SHAPE)
    assert channel_copies(model, replace(SHAPE, size=(16, 24), others=()))


def test_channels_that_are_alike_are_left_as_they_are() -> None:
    """Both channels of y are always zero: which one a channel of z is, no run can tell."""
    model = text_model("""
net (float[n, 3, h, w] image) => (float[n, 3, y, x] out)
<float none = {0}, int64[1] one = {1}, int64[1] three = {3}, float plus = {1}>
{
    y = Mul (image, none)
    z = Slice (y, one, three, one)
    out = Add (z, plus)
}""")
    assert not channel_copies(model, SHAPE)
