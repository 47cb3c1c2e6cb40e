"""Architecture -> layers: every convolution on the grid that its slot asks for, every sum on one scale."""

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.errors import ArchitectureError
from qnas.network.architecture import (
    FIXED_SPACES,
    Architecture,
    Choice,
    FirstInput,
    Pattern,
    Space,
    Version,
    find_architecture,
    named_architectures,
)
from qnas.network.layers import DATA_MOVEMENT, Layer, by_name, grid_of, scale_owner
from qnas.network.lowering import lower, slot_operations, uniform_layers
from qnas.quantization.quantizers import IMAGE

OPERATIONS = [
    "simple_1x1",
    "simple_3x3",
    "simple_3x3_grouped_3",
    "growth2_3x3",
    "decenc_3x3_2",
    "conv_3x1_1x3",
]


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    space = draw(st.sampled_from(get_args(Space)))
    normalizations = ["none"] if space in FIXED_SPACES else ["none", "bn", "adq", "adq_linear", "adadm"]
    pattern = st.builds(
        Pattern,
        head=st.integers(1, 3),
        body=st.integers(1, 3),
        skip=st.integers(1, 2),
        tail=st.integers(0, 3),
    )
    blank = Architecture(
        space=space,
        channels=draw(st.sampled_from([12, 24])),
        blocks=draw(st.integers(1, 2)),
        scale=draw(st.sampled_from([2, 3, 4])),
        layers={},
        normalization=draw(st.sampled_from(normalizations)),  # type: ignore[arg-type]
        pattern=draw(pattern),
        first_input=draw(st.sampled_from(get_args(FirstInput))),
        version=draw(st.sampled_from(get_args(Version))),
    )
    layers = {
        slot: Choice(fixed or draw(st.sampled_from(OPERATIONS)), draw(st.integers(2, 8)))
        for slot, fixed in slot_operations(blank).items()
    }
    return replace(blank, layers=layers)


def small(
    space: Space, op: str = "simple_3x3", choices: dict[str, Choice] | None = None, **of: Any
) -> Architecture:
    """One block of 12 channels, `op` at 8 bits, but for `choices`; `of` are other fields."""
    blank = replace(Architecture(space, channels=12, blocks=1, scale=4, layers={}), **of)
    return replace(blank, layers=uniform_layers(blank, op, 8) | (choices or {}))


def ops(layers: tuple[Layer, ...]) -> list[str]:
    return [layer.op for layer in layers]


def test_espcn_is_three_convolutions_between_quantizers_and_a_shuffle() -> None:
    layers = lower(find_architecture("espcn-w4"))
    assert [(layer.name, layer.op, layer.inputs) for layer in layers] == [
        ("image", "image", ()),
        ("image.grid", "quantize", ("image",)),
        ("conv_0", "conv", ("image.grid",)),
        ("conv_1.input", "quantize", ("conv_0",)),
        ("conv_1", "conv", ("conv_1.input",)),
        ("conv_2.input", "quantize", ("conv_1",)),
        ("conv_2", "conv", ("conv_2.input",)),
        ("output", "quantize", ("conv_2",)),
        ("upscaled", "pixel_shuffle", ("output",)),
    ]
    assert [(layer.channels, layer.kernel, layer.padding) for layer in layers if layer.op == "conv"] == [
        (64, (5, 5), (2, 2)),
        (32, (3, 3), (1, 1)),
        (48, (3, 3), (1, 1)),
    ]


def test_espcn_in_full_precision_has_relus_for_quantizers() -> None:
    assert ops(lower(find_architecture("espcn-w32"))) == [
        "image", "conv", "relu", "conv", "relu", "conv", "pixel_shuffle",
    ]  # fmt: skip


@pytest.mark.parametrize("name", named_architectures())
def test_every_named_architecture_lowers_to_an_image(name: str) -> None:
    architecture = find_architecture(name)
    layers = lower(architecture)
    assert layers[-1].channels == 3
    assert ("output" in by_name(layers)) == architecture.quantized


@settings(max_examples=100)
@given(architectures())
def test_layers_are_ordered_named_once_and_all_used(architecture: Architecture) -> None:
    layers = lower(architecture)
    names = [layer.name for layer in layers]
    assert len(set(names)) == len(names)
    for index, layer in enumerate(layers):
        assert set(layer.inputs) <= set(names[:index])
    assert {name for layer in layers for name in layer.inputs} == set(names[:-1])


@settings(max_examples=100)
@given(architectures())
def test_every_convolution_of_a_slot_has_its_bits_and_reads_a_grid_of_them(
    architecture: Architecture,
) -> None:
    layers = by_name(lower(architecture))
    for slot, choice in architecture.layers.items():
        if choice.op == "esa":
            continue
        names = [name for name in layers if name == slot or name.startswith(f"{slot}.")]
        convolutions = [layers[name] for name in names if layers[name].op == "conv"]
        assert convolutions
        for convolution in convolutions:
            grid = grid_of(layers, convolution.inputs[0])
            assert grid is not None
            assert convolution.bits == choice.bits
            assert grid.quant is not None
            assert grid.quant == IMAGE or grid.quant.bits == choice.bits


@settings(max_examples=100)
@given(architectures())
def test_what_meets_in_a_sum_or_a_concatenation_shares_one_scale(architecture: Architecture) -> None:
    layers = by_name(lower(architecture))
    streams_meet = (
        {"body.0.skip"} if architecture.space == "rfdn_space" else set()
    )  # the image's and the blocks'
    for layer in layers.values():
        if layer.op in ("add", "concat"):
            grids = [grid for name in layer.inputs if (grid := grid_of(layers, name)) and grid.quant]
            assert len(grids) == len(layer.inputs)
            scales = {(grid.quant and grid.quant.scale) or scale_owner(layers, grid).name for grid in grids}
            assert len(scales) == 1 or layer.name in streams_meet


@pytest.mark.parametrize("space", get_args(Space))
def test_without_residual_bits_only_convolutions_and_the_output_are_quantized(space: Space) -> None:
    layers = by_name(lower(small(space, residual_bits=None)))
    read = [name for layer in layers.values() if layer.op == "conv" for name in layer.inputs]
    for name in read:  # grows: what moves values hands on those of its inputs
        read += layers[name].inputs if layers[name].op in DATA_MOVEMENT else ()
    quantizers = {name for name, layer in layers.items() if layer.op == "quantize"}
    assert len(quantizers) > 3
    assert quantizers <= {*read, "image.grid", "output"}


def test_a_relu_is_not_repeated_behind_a_shuffle() -> None:
    layers = lower(find_architecture("srresnet-w32"))
    named = by_name(layers)
    assert named["upsample.1"].inputs == ("upsample.0.shuffle",)
    assert sum(op == "relu" for op in ops(layers)) == 1 + 16 + 2 + 1  # first, bodies, upsampling, last


def test_both_branches_of_a_basic_block_read_the_same_integers_when_their_bits_agree() -> None:
    same = by_name(lower(small("basic")))
    assert same["body.0.conv_0"].inputs == same["body.0.parallel"].inputs == ("body.0.input",)
    mixed = small("basic", choices={"body.0.parallel": Choice("simple_1x1", 4)})
    layers = by_name(lower(mixed))
    assert layers["body.0.conv_0"].inputs == ("body.0.conv_0.input",)
    assert layers["body.0.parallel"].inputs == ("body.0.parallel.input",)


def test_adaptive_deviation_scales_the_last_convolution_of_each_branch() -> None:
    layers = by_name(lower(small("basic", normalization="adq")))
    assert layers["body.0.norm"].op == "affine"
    assert layers["body.0.deviation"].inputs == layers["body.0.norm"].inputs == ("body.norm.grid",)
    scaled = [name for name, layer in layers.items() if "body.0.deviation" in layer.inputs]
    assert scaled == ["body.0.conv_1", "body.0.parallel"]


def test_the_body_and_the_tail_have_skips_with_adaptive_deviation_too() -> None:
    layers = by_name(lower(small("basic", normalization="adq_linear")))
    assert layers["body.deviation"].inputs == layers["body.norm"].inputs == ("head.1.grid",)
    assert layers["body.scaled"].inputs == ("body.0.skip.grid", "body.deviation")
    assert layers["body.skip"].inputs == ("head.1.grid", "body.scaled.grid")
    assert layers["tail.deviation"].inputs == layers["tail.norm"].inputs == ("upsample.shuffle",)
    assert layers["tail.1"].inputs == ("tail.1.input", "tail.deviation")
    assert layers["tail.0"].channels == 12
    deviations = [layer for layer in layers.values() if layer.op == "deviation"]
    assert {layer.form for layer in deviations} == {"linear"}
    assert len(deviations) == 3  # of the block, the body and the tail


def test_without_normalization_the_skips_are_plain() -> None:
    layers = by_name(lower(small("basic")))
    assert layers["body.skip"].inputs == ("head.1.grid", "body.0.skip.grid")
    assert layers["upscaled"].inputs == ("upsample.shuffle", "tail.1.grid")


def test_an_architecture_of_version_1_is_the_network_that_it_was() -> None:
    layers = by_name(lower(small("basic", normalization="adq", version=1)))
    assert "body.skip" not in layers
    assert layers["tail.0"].inputs == ("upsample.shuffle",)
    assert layers["tail.0"].channels == 3
    assert sum(layer.op == "deviation" for layer in layers.values()) == 1


def test_the_parts_of_the_basic_space_have_any_number_of_layers() -> None:
    layers = by_name(
        lower(small("basic", normalization="adq", pattern=Pattern(head=1, body=3, skip=2, tail=1)))
    )
    convolutions = [name for name, layer in layers.items() if layer.op == "conv"]
    assert convolutions == [
        "head.0", "body.0.conv_0", "body.0.conv_1", "body.0.conv_2", "body.0.parallel_0", "body.0.parallel_1",
        "upsample", "tail.0",
    ]  # fmt: skip
    scaled = [name for name, layer in layers.items() if "body.0.deviation" in layer.inputs]
    assert scaled == ["body.0.conv_2", "body.0.parallel_1"]
    assert layers["tail.0"].channels == 3


@pytest.mark.parametrize("space", get_args(Space))
def test_in_full_precision_each_convolution_may_read_its_own_prelu(space: Space) -> None:
    layers = by_name(lower(small(space, activation="prelu").with_bits(32)))
    assert not any(layer.op == "relu" for layer in layers.values())
    prelus = [name for name, layer in layers.items() if layer.op == "prelu"]
    assert prelus
    for name in prelus:
        if space == "rfdn_space" and ("distill" in name or "refine" in name):  # rfdn has one after each sum
            assert sum(name in layer.inputs for layer in layers.values()) == 1


def test_a_quantized_network_has_no_prelu() -> None:
    with pytest.raises(ArchitectureError, match="activation prelu is for networks in full precision"):
        lower(small("basic", activation="prelu"))


def test_without_a_tail_the_upsampled_image_is_the_output() -> None:
    layers = lower(small("basic", pattern=Pattern(tail=0)))
    assert [layer.name for layer in layers][-2:] == ["upsample.shuffle", "output"]


@pytest.mark.parametrize("space", get_args(Space))
def test_the_first_layer_may_read_the_image_at_its_own_bits(space: Space) -> None:
    architecture = small(space, first_input="bits").with_bits(4)
    named = by_name(lower(architecture))
    read = {layer.inputs[0] for layer in named.values() if layer.op == "conv"}
    grids = {grid_of(named, name) for name in read}
    assert all(grid is not None and grid.quant is not None and grid.quant != IMAGE for grid in grids)


def test_adaptive_deviation_scales_the_attention_of_an_rfdn_block() -> None:
    layers = by_name(lower(small("rfdn_space", normalization="adq")))
    assert layers["body.0.esa.multiply"].inputs == (
        "body.0.fusion.grid",
        "body.0.esa.gate.grid",
        "body.0.deviation",
    )
    assert "body.0.deviation" not in by_name(lower(small("rfdn_space", normalization="bn")))


def test_a_block_without_normalization_has_its_skip_all_the_same() -> None:
    layers = by_name(lower(small("rfdn_space")))
    assert layers["body.0.skip"].inputs == ("head.grid", "body.0.output.grid")


def test_attention_reads_rectified_values_in_the_search_space_and_signed_ones_in_rfdn() -> None:
    for space, signed in (("rfdn_space", set()), ("rfdn", {"conv1", "conv2", "conv_max", "conv_f", "conv4"})):
        layers = by_name(lower(small(space)))
        convolutions = [name for name in layers if ".esa." in name and layers[name].op == "conv"]
        assert len(convolutions) == 7
        for name in convolutions:
            grid = grid_of(layers, layers[name].inputs[0])
            assert grid is not None
            assert grid.quant is not None
            assert grid.quant.signed == (name.rsplit(".", 1)[1] in signed)


def test_slots_grow_with_the_blocks() -> None:
    one, two = small("rfdn_space"), small("rfdn_space", blocks=2)
    assert len(slot_operations(one)) == 7 + 2
    assert len(slot_operations(two)) == 14 + 2
    assert set(slot_operations(one).values()) == {None}


@pytest.mark.parametrize(
    ("architecture", "advice"),
    [
        (replace(small("espcn"), layers={}), "missing layer 'conv_0' in space espcn with 1 blocks: its"),
        (replace(small("basic"), blocks=2), "missing layer 'body.1.conv_0' in space basic with 2 blocks:"),
        (small("espcn", choices={"x": Choice("simple_3x3", 8)}), "unknown layer 'x' in space espcn"),
        (small("espcn", choices={"conv_0": Choice("simple_3x3", 8)}),
         "layer 'conv_0' of espcn is simple_5x5, not 'simple_3x3': only its bits can be chosen"),
        (small("basic", "vgg"), "layer 'head.0': unknown operation 'vgg'"),
        (small("basic", "simple_3x3_grouped_3", channels=16),
         "layer 'head.0': operation 'simple_3x3_grouped_3' cannot split 3 -> 16 channels into 3 groups"),
        (small("rfdn_space", channels=50), "repeats the image's 3 channels to 50: use a multiple of 3"),
        (small("rfdn", channels=3), "body.0.esa needs 4 channels or more, not 3: use more channels"),
        (small("espcn", normalization="adq"), "espcn has no normalization 'adq': use none"),
    ],
)  # fmt: skip
def test_what_describes_no_network_is_refused(architecture: Architecture, advice: str) -> None:
    with pytest.raises(ArchitectureError, match=advice):
        lower(architecture)
