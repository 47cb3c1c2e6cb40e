"""TFLite operators as ONNX operations: onnxruntime computes what LiteRT does, on random images."""

from collections.abc import Callable

import numpy as np
import pytest

from qnas.errors import ModelError
from qnas.export.to_tflite.file import Grid
from qnas.onnx.session import open_session
from qnas.testing.tflite_operators import AnyFile, constant
from qnas.tflite.reader import read_tflite
from qnas.tflite.session import LiteRtSession
from qnas.tflite.to_onnx.convert import onnx_of

H, W, C = 7, 6, 4
RNG = np.random.default_rng(0)
SAME, VALID = 0, 1
RELU, RELU_N1_TO_1, RELU6 = 1, 2, 3
Build = Callable[[AnyFile, int], int]


def one(
    op: str, shape: tuple[int, ...] = (1, H, W, C), inputs: tuple = (), version: int = 1, **options
) -> Build:
    """An operator of the image and constants; None among `inputs` is the image."""

    def build(file: AnyFile, image: int) -> int:
        given = inputs or (None,)
        reads = [image if x is None else constant(file, f"k{i}", x) for i, x in enumerate(given)]
        out = file.tensor("out", shape, "FLOAT32")
        file.any(op, reads, [out], version, **options)
        return out

    return build


def split(op: str, *constants: object) -> Build:
    def build(file: AnyFile, image: int) -> int:
        stored = [constant(file, f"k{i}", x) for i, x in enumerate(constants)]
        parts = [file.tensor(f"part{i}", (1, H, W, C // 2), "FLOAT32") for i in range(2)]
        reads = [stored[0], image] if op == "SPLIT" else [image, *stored]
        file.any(op, reads, parts, numSplits=2)
        out = file.tensor("out", (1, H, W, C // 2), "FLOAT32")
        file.any("SUB", parts, [out])
        return out

    return build


def halves(file: AnyFile, image: int) -> int:
    """A convolution whose weights are float16 behind a DEQUANTIZE."""
    weights = [normal(5, 3, 3, C).astype(np.float16), normal(5).astype(np.float16)]
    unpacked = []
    for i, values in enumerate(weights):
        stored = file.tensor(f"h{i}", values.shape, "FLOAT16", data=values.tobytes())
        unpacked.append(file.tensor(f"f{i}", values.shape, "FLOAT32"))
        file.any("DEQUANTIZE", [stored], [unpacked[i]], 3)
    out = file.tensor("out", (1, H, W, 5), "FLOAT32")
    file.any("CONV_2D", [image, *unpacked], [out], strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    return out


def unshuffled(file: AnyFile, image: int) -> int:
    """Pixels of blocks of two as channels, of an image whose sides are even."""
    even = file.tensor("even", (1, H - 1, W, C), "FLOAT32")
    file.any(
        "SLICE", [image, constant(file, "b", [0, 0, 0, 0]), constant(file, "s", [1, H - 1, W, C])], [even]
    )
    out = file.tensor("out", (1, H // 2, W // 2, 4 * C), "FLOAT32")
    file.any("SPACE_TO_DEPTH", [even], [out], blockSize=2)
    return out


def padded(file: AnyFile, image: int) -> int:
    """Zeros around an image, uneven ones, that a convolution reads which adds none."""
    wide = file.tensor("wide", (1, H + 3, W + 2, C), "FLOAT32")
    file.any("PAD", [image, constant(file, "p", [[0, 0], [1, 2], [2, 0], [0, 0]])], [wide])
    out = file.tensor("out", (1, H + 1, W, 5), "FLOAT32")
    kernel = [constant(file, "w", normal(5, 3, 3, C)), constant(file, "b", normal(5))]
    file.any("CONV_2D", [wide, *kernel], [out], **strides(1, 1), **DILATED, padding=VALID)
    return out


def sizes_computed(file: AnyFile, image: int) -> int:
    """A resize to twice the size, which the file computes of the image's shape."""
    shape = file.tensor("shape", (4,), "INT32")
    file.any("SHAPE", [image], [shape], outType=2)
    sides = file.tensor("sides", (2,), "INT32")
    file.any(
        "STRIDED_SLICE", [shape, *(constant(file, f"s{i}", [v]) for i, v in enumerate((1, 3, 1)))], [sides]
    )
    twice = file.tensor("twice", (2,), "INT32")
    file.any("MUL", [sides, constant(file, "two", 2)], [twice])
    out = file.tensor("out", (1, 2 * H, 2 * W, C), "FLOAT32")
    file.any("RESIZE_BILINEAR", [image, twice], [out], halfPixelCenters=True)
    return out


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def strides(h: int, w: int, **more: int) -> dict[str, int]:
    return {"strideH": h, "strideW": w} | more


DILATED = {"dilationHFactor": 1, "dilationWFactor": 1}
OPERATORS: dict[str, Build] = {
    "convolution": one("CONV_2D", (1, H, W, 5), (None, normal(5, 3, 3, C), normal(5)),
        **strides(1, 1), **DILATED),
    "even kernel": one("CONV_2D", (1, H, W, 5), (None, normal(5, 2, 4, C), normal(5)),
        **strides(1, 1), **DILATED),
    "strided": one("CONV_2D", (1, 4, 2, 5), (None, normal(5, 3, 3, C), normal(5)), **strides(2, 3), **DILATED,
                   fusedActivationFunction=RELU6),
    "valid": one("CONV_2D", (1, 5, 4, 5), (None, normal(5, 3, 3, C), normal(5)), **strides(1, 1), **DILATED,
                 padding=VALID, fusedActivationFunction=RELU),
    "dilated": one("CONV_2D", (1, H, W, 5), (None, normal(5, 3, 3, C), normal(5)), **strides(1, 1),
                   dilationHFactor=2, dilationWFactor=2),
    "depthwise": one("DEPTHWISE_CONV_2D", (1, H, W, 2 * C), (None, normal(1, 3, 3, 2 * C), normal(2 * C)),
                     **strides(1, 1), **DILATED, depthMultiplier=2, fusedActivationFunction=RELU_N1_TO_1),
    "transposed": one("TRANSPOSE_CONV", (1, 2 * H, 2 * W, 3),
                      (np.array([1, 2 * H, 2 * W, 3]), normal(3, 4, 4, C), None), **strides(2, 2)),
    "transposed by an odd kernel": one("TRANSPOSE_CONV", (1, 2 * H, 2 * W, 3),
                      (np.array([1, 2 * H, 2 * W, 3]), normal(3, 3, 3, C), None, normal(3)), 3,
        **strides(2, 2)),
    "transposed by nine": one("TRANSPOSE_CONV", (1, 3 * H, 3 * W, 1),
                      (np.array([1, 3 * H, 3 * W, 1]), normal(1, 9, 9, C), None), **strides(3, 3)),
    "transposed, small kernel": one("TRANSPOSE_CONV", (1, 3 * H, 3 * W, 3),
                      (np.array([1, 3 * H, 3 * W, 3]), normal(3, 2, 2, C), None), **strides(3, 3)),
    "transposed, valid": one("TRANSPOSE_CONV", (1, 2 * H + 1, 2 * W + 1, 3),
                      (np.array([1, 2 * H + 1, 2 * W + 1, 3]), normal(3, 3, 3, C), None), **strides(2, 2),
                      padding=VALID),
    "dense": one("FULLY_CONNECTED", (1, H, W, 5), (None, normal(5, C), normal(5)), keepNumDims=True),
    "mean pool": one("AVERAGE_POOL_2D", (1, 4, 3, C), **strides(2, 2), filterHeight=3, filterWidth=3),
    "largest": one("MAX_POOL_2D", (1, 3, 3, C), **strides(2, 2), filterHeight=2, filterWidth=2,
                   padding=VALID),
    "sum": one("ADD", inputs=(None, normal(C)), fusedActivationFunction=RELU),
    "difference": one("SUB", inputs=(normal(1, 1, C), None)),
    "product": one("MUL", inputs=(None, None)),
    "quotient": one("DIV", inputs=(None, np.array(3.5))),
    "largest of two": one("MAXIMUM", inputs=(None, np.array(0.25))),
    "least of two": one("MINIMUM", inputs=(None, np.array(0.25))),
    "squares": one("SQUARED_DIFFERENCE", inputs=(None, normal(C))),
    "square": one("SQUARE"), "root": one("SQRT"), "inverse root": one("RSQRT"),
    "relu": one("RELU"), "relu6": one("RELU6"), "relu n1": one("RELU_N1_TO_1"),
    "relu 0 1": one("RELU_0_TO_1"),
    "leaky": one("LEAKY_RELU", alpha=0.2), "slopes": one("PRELU", inputs=(None, normal(1, 1, C))),
    "sigmoid": one("LOGISTIC"), "tanh": one("TANH"), "swish": one("HARD_SWISH"), "elu": one("ELU"),
    "gelu": one("GELU", approximate=True), "erf gelu": one("GELU"), "negative": one("NEG"), "abs": one("ABS"),
    "exp": one("EXP"), "shares": one("SOFTMAX", beta=1.5), "floor": one("FLOOR"), "round": one("ROUND"),
    "join": one("CONCATENATION", (1, H, W, 2 * C), (None, None), axis=-1),
    "shuffle": one("DEPTH_TO_SPACE", (1, 2 * H, 2 * W, 1), blockSize=2),
    "unshuffle": unshuffled, "margins of a convolution": padded,
    "transpose": one("TRANSPOSE", (1, W, H, C), (None, np.array([0, 2, 1, 3]))),
    "reshape": one("RESHAPE", (1, H, W * C, 1), (None, np.array([1, H, W * C, 1]))),
    "margins": one("PAD", (1, H + 3, W + 1, C), (None, np.array([[0, 0], [1, 2], [0, 1], [0, 0]]))),
    "margins of a value": one("PADV2", (1, H + 3, W, C), (None, np.array([[0, 0], [1, 2], [0, 0], [0, 0]]),
                                                        np.array(0.5))),
    "mirrors": one("MIRROR_PAD", (1, H + 4, W + 2, C), (None, np.array([[0, 0], [2, 2], [1, 1], [0, 0]]))),
    "crop": one("SLICE", (1, H - 2, W - 1, 2), (None, np.array([0, 1, 0, 1]),
                np.array([1, H - 2, W - 1, 2]))),
    "strided crop": one("STRIDED_SLICE", (1, H - 1, 3, C), (None, np.array([0, 1, 0, 0]),
                        np.array([0, H, 0, 0]), np.array([1, 1, 2, 1])), beginMask=0b1101, endMask=0b1101),
    "a channel": one("STRIDED_SLICE", (1, H, W), (None, np.array([0, 0, 0, 1]), np.array([1, H, W, 2]),
                     np.array([1, 1, 1, 1])), shrinkAxisMask=0b1000),
    "backwards": one("STRIDED_SLICE", (1, H, W, C), (None, np.array([0, 0, 0, 0]), np.array([0, 0, 0, 0]),
                     np.array([1, 1, 1, -1])), beginMask=0b1111, endMask=0b1111),
    "split": split("SPLIT", np.array(3)),
    "parts": split("SPLIT_V", np.array([2, 2]), np.array(3)),
    "pick": one("GATHER", (1, H, W, 3), (None, np.array([2, 0, 1])), axis=3),
    "mean": one("MEAN", (1, 1, 1, C), (None, np.array([1, 2])), keepDims=True),
    "mean in a row": one("MEAN", (1, C), (None, np.array([2, 1]))),
    "mean of channels": one("MEAN", (1, H, W, 1), (None, np.array([3])), keepDims=True),
    "total": one("SUM", (1, 1, 1, C), (None, np.array([1, 2])), keepDims=True),
    "twice as large": one("RESIZE_BILINEAR", (1, 2 * H, 2 * W, C), (None, np.array([2 * H, 2 * W])), 3,
                          halfPixelCenters=True),
    "from a corner": one("RESIZE_BILINEAR", (1, 2 * H, 2 * W, C), (None, np.array([2 * H, 2 * W]))),
    "corner to corner": one("RESIZE_BILINEAR", (1, 2 * H, 2 * W, C), (None, np.array([2 * H, 2 * W])),
                            alignCorners=True),
    "another size": one("RESIZE_BILINEAR", (1, 10, 9, C), (None, np.array([10, 9])), 3,
                          halfPixelCenters=True),
    "nearest": one("RESIZE_NEAREST_NEIGHBOR", (1, 3 * H, 3 * W, C), (None, np.array([3 * H, 3 * W]))),
    "nearest centre": one("RESIZE_NEAREST_NEIGHBOR", (1, 10, 9, C), (None, np.array([10, 9])), 3,
                          halfPixelCenters=True),
    "float16 weights": halves,
    "a size of the image's": sizes_computed,
}  # fmt: skip


def packed(build: Build, kind: str = "FLOAT32") -> bytes:
    file = AnyFile()
    image = file.tensor(
        "image", (1, H, W, C), kind, signature=(1, -1, -1, C) if build is sizes_computed else None
    )
    return file.pack("net", image, build(file, image), {})


@pytest.mark.parametrize("case", OPERATORS)
def test_onnxruntime_computes_what_litert_does(case: str) -> None:
    data = packed(OPERATORS[case])
    x = np.random.default_rng(1).normal(size=(1, H, W, C)).astype(np.float32)
    x = np.abs(x) if "root" in case else x
    wanted = LiteRtSession(data).raw(x)
    model = onnx_of(read_tflite(data))
    (found,) = open_session(model.SerializeToString(), threads=1).run(None, {"image": x})
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_integers_stand_between_quantizers_and_the_image_is_bytes_from_zero_on() -> None:
    file, grid = AnyFile(), Grid(np.float32(0.5), -128)
    image = file.tensor("image", (1, H, W, C), "INT8", grid)
    scales = np.linspace(0.001, 0.004, C).astype(np.float32)
    weights = RNG.integers(-127, 128, (C, 3, 3, C)).astype(np.int8)
    weight = file.constant("w", weights, Grid(scales, 0))
    steps = RNG.integers(-90, 90, C).astype(np.int32)
    bias = file.constant("b", steps, Grid(np.float32(0.5) * scales, 0))
    out = file.tensor("out", (1, H, W, C), "INT8", Grid(np.float32(0.75), 3))
    file.any("CONV_2D", [image, weight, bias], [out], 3, **strides(1, 1), **DILATED)
    data = file.pack("net", image, out, {})
    model = onnx_of(read_tflite(data))
    pixels = np.random.default_rng(0).integers(0, 256, (1, H, W, C)).astype(np.uint8)
    wanted = LiteRtSession(data).raw((pixels ^ 128).view(np.int8)).astype(int) + 128
    session = open_session(model.SerializeToString(), threads=1, optimized=False)
    (found,) = session.run(None, {"image": pixels})
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - wanted).max() <= 1  # a sum in float32 may round otherwise


def test_an_operator_that_is_not_in_the_table_is_named() -> None:
    with pytest.raises(ModelError, match=r"CUMSUM \(tensor out\) is no operator that can be read"):
        onnx_of(read_tflite(packed(one("CUMSUM", inputs=(None, np.array(1))))))
