"""A space survives JSON and TOML; what is none is refused with its place; variables are what is decided."""

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qnas.errors import SpaceError
from qnas.network.architecture import Choice, find_architecture
from qnas.network.lowering import lower
from qnas.search.space.search_space import SearchSpace, find_space, from_document, named_spaces

TOML = """
version = 2
network = "basic"
channels = 12
blocks = 2
scale = 2
normalization = "bn"
identical_blocks = true
bits = [8, 4]

[operations]
"head.*" = ["simple_5x5"]
"*" = ["simple_3x3", "growth2_3x3"]
"""


def document(**changes: Any) -> dict[str, Any]:
    return {
        "network": "basic", "channels": 12, "blocks": 2, "scale": 2, "bits": [4, 8],
        "operations": {"*": ["simple_3x3", "simple_1x1"]}, **changes,
    }  # fmt: skip


@pytest.mark.parametrize("name", named_spaces())
def test_a_document_gives_back_the_same_space(name: str) -> None:
    space = find_space(name)
    assert space.name == name
    assert from_document(json.loads(json.dumps(space.to_document())), "here", name) == space


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("basic", 24**8),  # 2 + 3 + 1 + 2 layers, 12 operations at 2 bit widths
        ("basic-small", 12**8),
        ("basic-big-a", 16**2 * 14**2 * 8 * 24 * 16**2),  # appendix J, two bit widths of each operation
        ("basic-small-b", 8**2 * 8**2 * 6 * 8 * 6**2),
        ("rfdn-paper", 12**30),
        ("rfdn", 24**30),  # 4 blocks of 3 + 4 layers, upsample and tail
        ("rfdn-small", 12**30),
        ("edmips-espcn", 2**3),
        ("edmips-srresnet", 2**37),  # first, 16 blocks of 2, 2 upsamplings, conv_hr, last
        ("edmips-rfdn", 2**40),  # first, 4 blocks of 3 + 4, fusion and ESA, and three at the end
    ],
)
def test_sizes_of_the_named_spaces(name: str, size: int) -> None:
    assert find_space(name).size == size


def test_every_named_space_has_its_size_here() -> None:
    assert len(named_spaces()) == 10


def test_json_and_toml_say_the_same(tmp_path: Path) -> None:
    toml = tmp_path / "mine.toml"
    toml.write_text(TOML)
    space = find_space(str(toml))
    assert space == SearchSpace(
        "mine", "basic", 12, 2, 2, (4, 8),
        {"head.*": ("simple_5x5",), "*": ("simple_3x3", "growth2_3x3")}, "bn", True,
    )  # fmt: skip
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(space.to_document()))
    assert find_space(str(file)) == space


def test_prelus_are_searched_in_full_precision_alone() -> None:
    assert from_document(document(bits=[32], activation="prelu"), "here").placeholder.activation == "prelu"
    with pytest.raises(SpaceError, match=r"activation prelu is for bits \[32\] alone"):
        from_document(document(activation="prelu"), "here")


def test_a_space_has_the_pattern_and_the_first_input_that_it_names() -> None:
    space = from_document(
        document(version=2, pattern={"head": 1, "tail": 0}, first_input="bits"), "here", "mine"
    )
    assert list(space.slots)[:2] == ["head.0", "body.0.conv_0"]
    assert list(space.slots)[-1] == "upsample"
    assert space.placeholder.first_input == "bits"
    assert from_document(space.to_document(), "here", "mine") == space


def test_what_may_be_left_out() -> None:
    space = from_document({k: v for k, v in document(network="espcn").items() if k != "operations"}, "here")
    assert (space.normalization, space.identical_blocks, space.operations) == ("none", False, {})


# Variables ----------------------------------------------------------------------------------------------


def test_identical_blocks_are_decided_once() -> None:
    space = from_document(document(identical_blocks=True), "here")
    assert space.variables == {
        "head.0": ("head.0",),
        "head.1": ("head.1",),
        "body.*.conv_0": ("body.0.conv_0", "body.1.conv_0"),
        "body.*.conv_1": ("body.0.conv_1", "body.1.conv_1"),
        "body.*.parallel": ("body.0.parallel", "body.1.parallel"),
        "upsample": ("upsample",),
        "tail.0": ("tail.0",),
        "tail.1": ("tail.1",),
    }
    assert space.size == 4**8
    single = from_document(document(), "here")
    assert single.variables == {slot: (slot,) for slot in single.slots}
    assert single.size == 4**11


def test_numbered_layers_that_are_no_blocks_are_decided_one_by_one() -> None:
    space = from_document(document(network="srresnet", operations={}, identical_blocks=True, scale=4), "here")
    assert list(space.variables) == [
        "conv_first", "body.*.conv_0", "body.*.conv_1", "upsample.0", "upsample.1", "conv_hr", "conv_last",
    ]  # fmt: skip


def test_the_first_pattern_that_fits_counts() -> None:
    operations = {"body.1.*": ["simple_5x5"], "body.*": ["simple_1x1"], "*": ["simple_3x3"]}
    space = from_document(document(operations=operations), "here")
    assert space.candidates("body.0.conv_0") == ("simple_1x1",)
    assert space.candidates("body.1.conv_0") == ("simple_5x5",)
    assert space.candidates("head.0") == ("simple_3x3",)


def test_choices_reach_all_layers_that_they_decide() -> None:
    space = from_document(document(identical_blocks=True, normalization="adq"), "here")
    choices = {name: Choice("simple_1x1", 4) for name in space.variables}
    architecture = space.architecture({**choices, "body.*.parallel": Choice("simple_3x3", 8)})
    assert {name for name, c in architecture.layers.items() if c.bits == 8} == {
        "body.0.parallel", "body.1.parallel",
    }  # fmt: skip
    assert list(architecture.layers) == list(space.slots)
    assert (architecture.normalization, architecture.channels) == ("adq", 12)
    assert lower(architecture)


@pytest.mark.parametrize("name", named_spaces())
def test_the_placeholder_has_one_float_convolution_for_each_layer(name: str) -> None:
    space = find_space(name)
    convolutions = [layer.name for layer in lower(space.placeholder) if layer.op == "conv"]
    assert all(slot in convolutions or any(c.startswith(f"{slot}.") for c in convolutions)
               for slot in space.slots)  # fmt: skip
    assert not space.placeholder.quantized


# Other spaces from one ----------------------------------------------------------------------------------


def test_bits_are_sorted_and_replaced() -> None:
    space = find_space("basic-small").with_bits([32, 2])
    assert space.bits == (2, 32)
    assert space.operations == find_space("basic-small").operations
    with pytest.raises(SpaceError, match=r"^basic-small: bits\[0\] is 5, not one of 2, 3, 4, 8, 32: "):
        space.with_bits([5])


def test_the_second_half_of_a_two_fold_search_leaves_only_the_bits_open() -> None:
    space = find_space("basic-small")
    choices = {
        name: Choice(space.candidates(name)[index % 6], 32) for index, name in enumerate(space.variables)
    }
    found = space.architecture(choices)
    second = space.with_operations_of(found)
    assert second.size == 2**8
    assert {slot: (c.op,) for slot, c in found.layers.items()} == second.slots
    assert from_document(second.to_document(), "here", second.name) == second


def test_operations_of_another_network_do_not_fit() -> None:
    with pytest.raises(SpaceError, match=r"rfdn with 4 blocks do not fit basic: it is basic with 3$"):
        find_space("basic").with_operations_of(find_architecture("rfdn-w4"))


def test_operations_that_differ_between_blocks_do_not_fit_identical_blocks() -> None:
    space = find_space("basic-small")
    found = space.architecture({name: Choice("simple_3x3", 8) for name in space.variables})
    layers = dict(found.layers, **{"body.1.conv_0": Choice("simple_1x1", 8)})
    with pytest.raises(SpaceError, match=r"body\.\*\.conv_0 .* simple_3x3 .* body\.1\.conv_0 .* simple_1x1"):
        space.with_operations_of(space.frame(layers))


# What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"network": "vgg"}, "network is 'vgg', not one of basic, espcn, rfdn, rfdn_space, srresnet"),
        ({"channels": 0}, "channels is 0, not a whole number from 1 to 512"),
        ({"channels": 12.0}, "channels is 12.0, not a whole number from 1 to 512"),
        ({"channels": True}, "channels is True, not a whole number from 1 to 512"),
        ({"blocks": [2]}, "blocks is a list of 1, not a whole number from 1 to 64"),
        ({"scale": 5}, "scale is 5, not one of 2, 3, 4"),
        ({"normalization": None}, "normalization is None, not one of adadm, adq, adq_linear, bn, none"),
        ({"identical_blocks": 1}, "identical_blocks is 1, not true or false"),
        ({"bits": []}, "bits is a list of 0, not a list of 1 or more"),
        ({"bits": 8}, "bits is 8, not a list"),
        ({"bits": [4, 6]}, r"bits\[1\] is 6, not one of 2, 3, 4, 8, 32"),
        ({"bits": [4.0]}, r"bits\[0\] is 4\.0, not one of 2, 3, 4, 8, 32"),
        ({"bits": [8, 4, 8]}, "bits names a width twice: "),
        ({"operations": ["simple_3x3"]}, "operations is a list of 1, not an object"),
        ({"operations": {"*": "simple_3x3"}}, r"operations\.\* is 'simple_3x3', not a list"),
        ({"operations": {"*": []}}, r"operations\.\* is a list of 0, not a list of 1 or more"),
        ({"operations": {"*": ["simple_3x3", 4]}}, r"operations\.\*\[1\] is 4, not a text"),
        ({"operations": {"*": ["a", "a"]}}, r"operations\['\*'\] names an operation twice"),
        ({"operations": {"*": ["simple_3x3", "simple_2x2"]}},
         "layer 'head.0': operation 'simple_2x2' has an even kernel"),
        ({"operations": {"tail.*": ["conv"], "*": ["simple_3x3"]}},
         "layer 'tail.0': unknown operation 'conv'"),
        ({"operations": {"*": ["simple_3x3_grouped_5"]}},
         "layer 'head.0': .* cannot split 3 -> 12 channels"),
        ({"operations": {"head.*": ["simple_3x3"]}},
         "operations has no pattern for layer 'body.0.conv_0': add"),
        ({"operations": {"tial.*": ["simple_3x3"], "*": ["simple_3x3"]}},
         r"operations\['tial.\*'\] fits no layer of basic: they are head.0, head.1, body.0.conv_0"),
        ({"network": "rfdn"}, "the operations of rfdn are given: leave `operations` out"),
        ({"network": "rfdn", "operations": {}, "normalization": "bn"}, "rfdn has no normalization 'bn'"),
        ({"network": "rfdn_space", "channels": 20}, "3 channels to 20: use a multiple of 3"),
        ({"network": "rfdn", "operations": {}, "channels": 3}, "needs 4 channels or more"),
        ({"depth": 3}, "depth is unknown, not one of network, channels, blocks, scale"),
        ({"identical_blocks": True, "operations": {"body.1.*": ["simple_1x1"], "*": ["simple_3x3"]}},
         r"body\.\*\.conv_0 .* simple_3x3 .* body\.1\.conv_0 .* simple_1x1"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)  # fmt: skip
def test_what_describes_no_space_is_refused_at_its_place(changes: dict[str, Any], advice: str) -> None:
    with pytest.raises(SpaceError, match=rf"^mine(\.json)?: .*{advice}"):
        from_document(document(**changes), "mine.json")


@pytest.mark.parametrize("key", ["network", "channels", "blocks", "scale", "bits"])
def test_a_missing_key_is_named(key: str) -> None:
    wanting = document()
    del wanting[key]
    with pytest.raises(SpaceError, match=f"^mine.json: {key} is missing: "):
        from_document(wanting, "mine.json")


@pytest.mark.parametrize(
    ("file", "content", "advice"),
    [
        ("mine.json", b"{", "mine.json is not JSON"),
        ("mine.json", b"[" * 100_000, "mine.json is not JSON"),
        ("mine.json", b'{"channels": ' + b"9" * 5000 + b"}", "mine.json is not JSON"),
        ("mine.json", b"[1]", "mine.json is no search space"),
        ("mine.json", b"\xff\xfe", "mine.json is no text in UTF-8"),
        ("mine.toml", b"network = ", "mine.toml is not TOML"),
        ("mine.toml", TOML.replace("12", f"0x{'f' * 5000}").encode(), "channels is huge, not a whole number"),
        ("mine.toml", TOML.replace("12", "1979-05-27").encode(), "channels is datetime.* not a whole number"),
        ("mine.yaml", b"", "no space .*mine.yaml': name a .json or .toml file or one of basic, basic-big-a"),
    ],
    ids=["cut", "deep", "long", "list", "bytes", "toml", "hexadecimal", "date", "yaml"],
)
def test_files_that_hold_no_space_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: bytes, advice: str
) -> None:
    monkeypatch.chdir(tmp_path)  # long names are cut in messages
    Path(file).write_bytes(content)
    with pytest.raises(SpaceError, match=advice):
        find_space(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"none\.json cannot be read \(No such file or directory\)"):
        find_space(str(tmp_path / "none.json"))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["basic", "rfdn", "adq", "*", "body.*", "simple_3x3", "growth2_3x3", 4, 8, 32]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
KEYS = ["network", "channels", "blocks", "scale", "bits", "operations", "normalization", "identical_blocks"]
NETWORKS = st.sampled_from(["basic", "rfdn_space", "espcn", "srresnet", "rfdn"])
OPERATIONS = st.dictionaries(
    st.sampled_from(["*", "body.*", "head.?", "[!h]*", "[", "body.0.*", ""]) | st.text(max_size=5),
    st.lists(
        st.sampled_from(["simple_3x3", "simple_1x1_grouped_3", "decenc_3x3_2"]) | st.text(max_size=5),
        max_size=3,
    ),
    max_size=3,
)  # fmt: skip


@given(ANYTHING)
def test_any_document_is_a_space_or_a_space_error(anything: Any) -> None:
    try:
        from_document(anything, "here")
    except SpaceError:
        return
    raise AssertionError("no document without the right keys is a space")


@given(st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=2), NETWORKS, OPERATIONS, st.booleans())
@example({}, "basic", {"*": ["simple_3x3"]}, True)
def test_any_change_of_a_document_is_a_space_that_works_or_a_space_error(
    changes: dict[str, Any], network: str, operations: dict[str, list[str]], identical: bool
) -> None:
    wanted = document(network=network, operations=operations, identical_blocks=identical) | changes
    try:
        space = from_document(wanted, "here")
    except SpaceError:
        return
    assert from_document(space.to_document(), "here", space.name) == space
    assert space.size == prod(len(space.candidates(name)) * len(space.bits) for name in space.variables)
    for index in range(2):
        assert lower(
            space.architecture(
                {n: Choice(space.candidates(n)[-index], space.bits[-index]) for n in space.variables}
            )
        )
