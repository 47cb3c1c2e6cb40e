"""Shapes and values of the inputs that the bench makes up."""

from collections.abc import Sequence

import numpy as np
import pytest

from qnas.errors import ModelError, UsageError
from qnas.runtimes.inputs import Input, ShapeRequest, parse_shape, random_inputs, resolve_shapes


def declared(**shapes: Sequence[int | str | None]) -> tuple[Input, ...]:
    return tuple(Input(name, "float32", tuple(shape)) for name, shape in shapes.items())


@pytest.mark.parametrize(
    ("text", "name", "sizes"),
    [
        ("1x3x64x48", None, (1, 3, 64, 48)),
        ("64x48", None, (64, 48)),
        ("image:64x48", "image", (64, 48)),
        ("input:0:7", "input:0", (7,)),
    ],
)
def test_shape_is_read(text: str, name: str | None, sizes: tuple[int, ...]) -> None:
    assert parse_shape(text) == ShapeRequest(name, sizes)


@pytest.mark.parametrize("text", ["", "axb", "3x", "-1x3", "3,4", "image:", "0x4", "1x3x9999999999x1"])
def test_shape_that_is_none_raises(text: str) -> None:
    with pytest.raises(UsageError, match="write sizes as"):
        parse_shape(text)


@pytest.mark.parametrize(
    ("dims", "asked", "expected"),
    [
        ((None, None, None, None), (), (1, 3, 128, 128)),
        (("n", 1, "h", "w"), (), (1, 1, 128, 128)),
        ((1, 3, 32, 32), (), (1, 3, 32, 32)),
        (("n", "h", "w", 3), (), (1, 128, 128, 3)),
        (("n", "h", "w", 3), ("20x30",), (1, 20, 30, 3)),
        (("n", 3, "h", "w"), ("20x30",), (1, 3, 20, 30)),
        (("n", 3, "h", "w"), ("2x3x20x30",), (2, 3, 20, 30)),
        (("n", "m"), (), (1, 1)),
        (("n", "m"), ("5x6",), (5, 6)),
        ((), (), ()),
    ],
)
def test_free_dimensions_take_what_is_asked_or_an_image(
    dims: tuple[int | str | None, ...], asked: tuple[str, ...], expected: tuple[int, ...]
) -> None:
    assert resolve_shapes(declared(x=dims), [parse_shape(text) for text in asked]) == {"x": expected}


def test_inputs_that_share_a_symbol_share_its_size() -> None:
    inputs = declared(image=("n", 3, "h", "w"), ids=("n", 7), rest=("m",))
    asked = [parse_shape("image:5x3x8x9")]
    assert resolve_shapes(inputs, asked) == {"image": (5, 3, 8, 9), "ids": (5, 7), "rest": (1,)}


def test_height_and_width_go_to_every_image_among_several_inputs() -> None:
    inputs = declared(left=(1, 3, "h", "w"), right=(1, 3, "h", "w"), gain=("n", "m"))
    assert resolve_shapes(inputs, [parse_shape("8x9")]) == {
        "left": (1, 3, 8, 9),
        "right": (1, 3, 8, 9),
        "gain": (1, 1),
    }


def test_full_shape_without_a_name_raises_among_several_inputs() -> None:
    with pytest.raises(UsageError, match="the model has 2 inputs: name the one meant"):
        resolve_shapes(declared(a=("n",), b=("n",)), [parse_shape("3x4x5")])


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("float32", 0, 1),
        ("float16", 0, 1),
        ("uint8", 0, 255),
        ("int8", -128, 127),
        ("int64", 0, 1),
        ("bool", 0, 1),
    ],
)
def test_random_inputs_have_the_type_and_range_of_the_input(kind: str, low: int, high: int) -> None:
    inputs = (Input("x", kind, (None, None)),)
    values = random_inputs(inputs, {"x": (50, 60)}, seed=1)["x"]
    assert values.dtype == np.dtype(kind)
    assert values.shape == (50, 60)
    assert values.min() == pytest.approx(low, abs=0.01)
    assert values.max() == pytest.approx(high, abs=0.01)
    assert np.array_equal(values, random_inputs(inputs, {"x": (50, 60)}, seed=1)["x"])
    assert not np.array_equal(values, random_inputs(inputs, {"x": (50, 60)}, seed=2)["x"])


def test_an_input_that_is_no_tensor_of_numbers_cannot_be_made_up() -> None:
    with pytest.raises(ModelError, match="input 'x' is a string"):
        random_inputs((Input("x", "string", (2,)),), {"x": (2,)}, seed=0)
