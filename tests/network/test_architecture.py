"""An architecture survives JSON, and what is none is refused with the way out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnas.errors import ArchitectureError
from qnas.network.architecture import (
    Architecture,
    Choice,
    Normalization,
    Pattern,
    Space,
    find_architecture,
    from_document,
    from_json,
    named_architectures,
)
from qnas.quantization.quantizers import BIT_WIDTHS

CHOICES = st.builds(Choice, st.text(), st.sampled_from(BIT_WIDTHS))
ARCHITECTURES = st.builds(
    Architecture,
    space=st.sampled_from(get_args(Space)),
    channels=st.integers(1, 512),
    blocks=st.integers(1, 64),
    scale=st.sampled_from([2, 3, 4]),
    layers=st.dictionaries(st.text(), CHOICES, min_size=1),
    normalization=st.sampled_from(get_args(Normalization)),
    residual_bits=st.sampled_from([8, None]),
    levels=st.sampled_from(["uniform", "lloyd"]),
    arithmetic=st.sampled_from(["short", "paper"]),
    pattern=st.builds(Pattern, st.integers(1, 8), st.integers(1, 8), st.integers(1, 8), st.integers(0, 8)),
    first_input=st.sampled_from(["image", "bits"]),
    version=st.sampled_from([1, 2]),
)


def document(**changes: Any) -> dict[str, Any]:
    return find_architecture("espcn-w8").to_document() | changes


@given(ARCHITECTURES)
def test_json_gives_back_the_same_architecture(architecture: Architecture) -> None:
    assert from_json(architecture.to_json(), "here") == architecture


def test_a_file_is_read_as_a_name_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(find_architecture("rfdn-w4").to_json())
    assert find_architecture(str(file)) == find_architecture("rfdn-w4")


@pytest.mark.parametrize("name", named_architectures())
def test_the_name_of_an_architecture_tells_its_bits(name: str) -> None:
    bits = {choice.bits for choice in find_architecture(name).layers.values()}
    assert (
        bits
        == {"w4": {4}, "w8": {8}, "w32": {32}, "w48": {4, 8}}[name.removesuffix("-example").split("-")[-1]]
    )


def test_with_bits_changes_every_layer_and_nothing_else() -> None:
    mixed = find_architecture("basic-adq-w48-example")
    full = mixed.with_bits(32)
    assert mixed.quantized
    assert not full.quantized
    assert {choice.bits for choice in full.layers.values()} == {32}
    back = {name: Choice(c.op, mixed.layers[name].bits) for name, c in full.layers.items()}
    assert replace(full, layers=back) == mixed


@pytest.mark.parametrize(
    ("key", "value", "advice"),
    [
        ("space", "vgg", "space is 'vgg', not one of basic, espcn, rfdn, rfdn_space, srresnet"),
        ("channels", 0, "channels is 0, not a whole number from 1 to 512"),
        ("channels", 36.0, "channels is 36.0, not a whole number from 1 to 512"),
        ("channels", True, "channels is True, not a whole number from 1 to 512"),
        ("channels", "36", "channels is '36', not a whole number from 1 to 512"),
        ("blocks", 65, "blocks is 65, not a whole number from 1 to 64"),
        ("blocks", [1], r"blocks is a list of 1, not a whole number from 1 to 64"),
        ("scale", 5, "scale is 5, not one of 2, 3, 4"),
        ("normalization", None, "normalization is None, not one of adadm, adq, adq_linear, bn, none"),
        ("residual_bits", 4, "residual_bits is 4, not 8 or null"),
        ("pattern", {"head": 0}, "pattern.head is 0, not a whole number from 1 to 8"),
        ("pattern", {"neck": 1}, "pattern.neck is unknown, not one of head, body, skip, tail"),
        ("first_input", "float", "first_input is 'float', not one of bits, image"),
        ("levels", "log", "levels is 'log', not one of lloyd, uniform"),
        ("layers", {}, "layers is an object of 0, not an object of 1 or more"),
        ("layers", [], "layers is a list of 0, not an object"),
        ("layers", {"a": "simple_3x3"}, "layers.a is 'simple_3x3', not an object"),
        ("layers", {"a": {"op": 3, "bits": 8}}, "layers.a.op is 3, not a text"),
        ("layers", {"a": {"op": "x", "bits": 8, "b": 1}}, "layers.a.b is unknown, not one of op, bits"),
        ("layers", {"a": {"op": "x", "bits": 9}}, "layers.a.bits is 9, not one of 2, 3, 4, 5, 6, 7, 8, 32"),
        ("layers", {"a": {"op": "x", "bits": 8.0}}, "layers.a.bits is 8.0, not one of 2, 3, 4"),
        ("layers", {"a": {"op": "x", "bits": [8]}}, r"layers.a.bits is a list of 1, not one of 2, 3"),
        ("depth", 3, "depth is unknown, not one of space, channels, blocks, scale"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_the_right_ones(key: str, value: Any, advice: str) -> None:
    with pytest.raises(ArchitectureError, match=f"^mine.json: .*{advice}"):
        from_document(document(**{key: value}), "mine.json")


def test_a_file_without_a_version_has_the_first() -> None:
    old = document()
    del old["version"]
    assert from_document(old, "mine.json").version == 1
    with pytest.raises(ArchitectureError, match=r"mine\.json: version is 3, not one of 1, 2"):
        from_document(document(version=3), "mine.json")


def test_a_missing_key_is_named() -> None:
    wanting = document()
    del wanting["scale"]
    with pytest.raises(ArchitectureError, match=r"mine\.json: scale is missing: `qnas-train"):
        from_document(wanting, "mine.json")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("{", "mine.json is not JSON .*: `qnas-train --show ARCH` writes one"),
        ("[" * 100_000, "mine.json is not JSON"),
        (f'{{"scale": {"9" * 5000}}}', "mine.json is not JSON"),
        ("[1]", "mine.json is no architecture"),
        (json.dumps(document(channels=float("nan"))), "mine.json is not JSON"),
    ],
    ids=["cut", "deep", "long", "list", "nan"],
)
def test_text_that_is_no_architecture_is_refused(text: str, advice: str) -> None:
    with pytest.raises(ArchitectureError, match=advice):
        from_json(text, "mine.json")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ArchitectureError, match=r"no architecture 'espcn-w9': .* basic-w32, .* srresnet-w8$"):
        find_architecture("espcn-w9")


def test_a_file_of_other_bytes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ArchitectureError, match=r"mine.json is no text in UTF-8"):
        find_architecture(str(file))


def test_an_architecture_in_place_of_its_file_name_is_refused() -> None:
    with pytest.raises(ArchitectureError, match=r"File name too long\): name a JSON architecture file"):
        find_architecture(find_architecture("rfdn-w4").to_json())
