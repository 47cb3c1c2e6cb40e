"""Passes ask a class of nodes how far a value reaches: one that they have never seen is safe in each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from qnas.errors import ModelError
from qnas.export.passes.channel_padding import pad_channels
from qnas.export.passes.dense_groups import dense_groups
from qnas.export.passes.phases import delay_shuffles
from qnas.export.passes.repeats import fold_repeats
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.channel_order import in_runtime_order, shuffled_back
from qnas.export.to_tflite.writer import write_tflite
from qnas.integer.interpreter import run
from qnas.integer.network import IntegerNetwork, rewritten
from qnas.integer.nodes import Add, Concat, DepthToSpace, IntegerNode
from qnas.integer.requantization import Bytes, Read, Watch
from qnas.testing.small_networks import PIXELS, conv, grid, image, network, pixels, weights

HALF = grid(2**-6)


@dataclass(frozen=True, eq=False)
class Inverted(IntegerNode, scope="value"):
    """255 - q: zero does not stay zero."""

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        return 255 - reads[0][0]


@dataclass(frozen=True, eq=False)
class Larger(IntegerNode, scope="value"):
    """The larger of two tensors on one grid."""

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        return np.maximum(reads[0][0], reads[1][0])


@dataclass(frozen=True, eq=False)
class Levelled(IntegerNode, scope="tensor"):
    """What each channel has above the mean of all, as a layer norm needs it: a reduction over channels."""

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        x = reads[0][0].astype(int)
        return np.clip(x - x.sum(axis=1, keepdims=True) // x.shape[1] + 64, 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class WronglyDeclared(Levelled, scope="channel"):
    """The same, said to work channel by channel."""


PASSES: dict[str, Callable[[IntegerNetwork], IntegerNetwork]] = {
    "phases": delay_shuffles,
    "repeats": fold_repeats,
    "groups": dense_groups,
    "channels": lambda net: pad_channels(net, 4),
    "order": lambda net: shuffled_back(in_runtime_order(net)),
    **{f"target {name}": lambda net, target=target: fitted(net, target) for name, target in TARGETS.items()},
}


def around(*middle: IntegerNode) -> IntegerNetwork:
    """`middle` reads "one" and "two", 6 channels of convolutions each, and writes "out"."""
    rng = np.random.default_rng(0)
    return network(
        image(), conv("one", "image", weights(rng, 6, 3, 3, 3, bits=4), HALF),
        conv("two", "image", weights(rng, 6, 3, 1, 1, bits=4), HALF), *middle,
        conv("up", "out", weights(rng, 12, middle[-1].channels, 3, 3, bits=4), HALF),
        DepthToSpace("shuffle", ("up",), 3, HALF, 2),
        conv("last", "shuffle", weights(rng, 3, 3, 3, 3, bits=4), HALF), scale=2,
    )  # fmt: skip


def behind(tail: IntegerNode) -> IntegerNetwork:
    """`tail` reads "shuffle" and has the last word."""
    rng = np.random.default_rng(1)
    up = conv("up", "image", weights(rng, 12, 3, 3, 3, bits=4), HALF)
    return network(image(), up, DepthToSpace("shuffle", ("up",), 3, HALF, 2), tail, scale=2)


KNOWN_BY_VALUE = [
    around(Inverted("out", ("one",), 6, HALF)),
    around(Larger("out", ("one", "two"), 6, HALF)),
    around(Concat("many", ("one",) * 3, 18, HALF), Inverted("out", ("many",), 18, HALF)),
    around(Concat("both", ("one", "two"), 12, HALF), Larger("out", ("both", "both"), 12, HALF)),
    behind(Inverted("tail", ("shuffle",), 3, HALF)),
    behind(Larger("tail", ("shuffle", "shuffle"), 3, HALF)),
]
OVER_CHANNELS = [
    around(Levelled("out", ("one",), 6, HALF)),
    around(Add("sum", ("one", "two"), 6, HALF), Levelled("out", ("sum",), 6, HALF)),
    around(Concat("many", ("one",) * 3, 18, HALF), Levelled("out", ("many",), 18, HALF)),
    behind(Levelled("tail", ("shuffle",), 3, HALF)),
]


def test_a_class_of_nodes_that_does_not_say_its_scope_cannot_be_written() -> None:
    for base in (IntegerNode, Add):  # none is inherited either
        with pytest.raises(TypeError, match="scope"):
            type("Reduced", (base,), {})


@pytest.mark.parametrize("edit", PASSES)
@pytest.mark.parametrize("net", [*KNOWN_BY_VALUE, *OVER_CHANNELS])
def test_a_node_that_no_pass_knows_computes_the_same_behind_each(net: IntegerNetwork, edit: str) -> None:
    x = pixels(5, 6)
    assert run(net, x).std() > 10
    np.testing.assert_array_equal(run(PASSES[edit](net), x), run(net, x))


def test_what_works_by_value_takes_part_in_the_passes() -> None:
    single, pair, repeated = KNOWN_BY_VALUE[:3]
    for net in (single, pair):
        assert pad_channels(net, 4).by_name()["out"].channels == 8
    assert fold_repeats(repeated).by_name()["out.once"].channels == 6
    assert [type(node) for node in delay_shuffles(KNOWN_BY_VALUE[4]).nodes[-2:]] == [Inverted, DepthToSpace]


def test_a_reduction_over_channels_gets_none_that_are_made_up() -> None:
    padded = pad_channels(OVER_CHANNELS[1], 4).by_name()
    assert [padded[name].channels for name in ("one", "two", "sum", "out", "up")] == [6] * 4 + [12]
    wrong = rewritten(
        OVER_CHANNELS[0],
        lambda node: (WronglyDeclared(**vars(node)) if isinstance(node, Levelled) else node,),
    )
    x = pixels(5, 6)
    assert not np.array_equal(run(pad_channels(wrong, 4), x), run(wrong, x))


def test_a_reduction_over_channels_stays_behind_its_shuffle_and_behind_copies() -> None:
    assert delay_shuffles(OVER_CHANNELS[3]) is OVER_CHANNELS[3]
    assert fold_repeats(OVER_CHANNELS[2]).by_name()["out"].channels == 18


def test_writers_refuse_a_node_that_they_have_no_form_for_by_name() -> None:
    net = network(image(), Levelled("norm", ("image",), 3, PIXELS))
    with pytest.raises(ModelError, match=r"norm \(levelled\) has no form in ONNX: export another format"):
        write_onnx(net, TARGETS["onnxruntime"])
    with pytest.raises(ModelError, match=r"norm \(levelled\) has no form in TFLite"):
        write_tflite(net, 4, 4)
