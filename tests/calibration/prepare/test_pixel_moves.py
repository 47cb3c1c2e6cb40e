"""Reshapes and transpositions that move pixels into channels, or back, are found whatever their order."""

from pathlib import Path

import onnx
import pytest
from torch import Tensor, nn
from torch.nn import functional as F

from qnas.calibration.prepare.float_model import read_float_model
from qnas.testing.sr_modules import conv, export


def torch_order(x: Tensor) -> Tensor:
    return F.pixel_unshuffle(x, 2)


def blocks_first(x: Tensor) -> Tensor:
    """The pixels of a block one by one, as TensorFlow and ONNX order them."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, 4 * c, h // 2, w // 2)


def channels_last(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    y = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5)
    return y.reshape(n, h // 2, w // 2, 4 * c).permute(0, 3, 1, 2)


MOVES = {"torch": torch_order, "blocks first": blocks_first, "channels last": channels_last}


class Deep(nn.Module):
    def __init__(self, move: str) -> None:
        super().__init__()
        self.move, self.conv = MOVES[move], conv(12, 48)

    def forward(self, image: Tensor) -> Tensor:
        y = self.conv(self.move(image))
        n, _, h, w = y.shape  # a pixel shuffle by 4, written out
        return y.reshape(n, 3, 4, 4, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, 3, 4 * h, 4 * w)


@pytest.mark.parametrize("move", MOVES)
def test_pixels_that_become_channels_are_one_operation(move: str, tmp_path: Path) -> None:
    path = export(Deep(move).eval(), tmp_path / "network.onnx")
    assert "Reshape" in {node.op_type for node in onnx.load(path).graph.node}
    network = read_float_model(path, "0..1")  # compares what it computes before and after
    kinds = [node.op_type for node in network.model.graph.node]
    order = ["Gather"] if move == "torch" else []
    assert kinds == ["SpaceToDepth", *order, "Conv", "DepthToSpace"]
