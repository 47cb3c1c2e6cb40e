"""The document layer: what it reads, what it refuses, and that every refusal is one line with its place."""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnas.documents import reading
from qnas.documents.reading import Closed, Count, Document, Number, Positive, Text
from qnas.errors import LONGEST, ModelError, printable


class Row(Closed, frozen=True, rename="kebab"):
    macs: Count
    own_kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Interval:
    low: Positive
    high: Positive

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


@dataclass(frozen=True)
class Whole:
    name: Text
    rows: tuple[Row, ...] = ()
    times: dict[str, Interval] = field(default_factory=dict)
    pair: tuple[Number, Number] | None = None
    flag: bool = False
    data: bytes = b""
    anything: Any = None


FILE = Document(Whole, "report", "write it again", ModelError, "qnas-test", 3)
HEAD = {"format": "qnas-test", "version": 3, "name": "x"}


def refused(**values: Any) -> str:
    """What is said of a document with these values, without the file's name and the advice."""
    with pytest.raises(ModelError) as caught:
        FILE.parse(json.dumps(HEAD | values), "a.json")
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) <= LONGEST
    assert said.startswith("a.json")
    assert said.endswith(": write it again")
    return said.removeprefix("a.json").removeprefix(": ").removesuffix(": write it again")


def test_a_document_becomes_the_values_of_its_class(tmp_path: Path) -> None:
    times = {"low": 1, "high": 2.5, "more": "is left out"}
    content = HEAD | {"rows": [{"macs": 2, "own-kind": "b"}], "times": {"a": times}, "pair": [0, 1]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = FILE.read(tmp_path / "a.json")
    assert found == Whole("x", (Row(2, "b"),), {"a": Interval(1.0, 2.5)}, (0.0, 1.0))
    assert type(found.times["a"].low) is float


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": 5}, "name is 5, not a text of at most 4000 characters"),
        ({"name": "é" * 4001}, "name is 'ééé"),
        ({"rows": {}}, "rows is an object of 0, not a list"),
        ({"rows": [{"macs": 1}, 3]}, "rows[1] is 3, not an object"),
        ({"rows": [{}]}, "rows[0].macs is missing"),
        ({"rows": [{"macs": 1, "color": 2}]}, "rows[0].color is unknown, not one of macs, own-kind"),
        ({"rows": [{"macs": True}]}, "rows[0].macs is True, not a whole number from 0"),
        ({"rows": [{"macs": 8.0}]}, "rows[0].macs is 8.0, not a whole number from 0"),
        ({"rows": [{"macs": -1}]}, "rows[0].macs is -1, not a whole number from 0"),
        ({"rows": [{"macs": 10**40}]}, "rows[0].macs is huge, not a whole number from 0"),
        ({"rows": [{"macs": 1, "own-kind": "c"}]}, "rows[0].own-kind is 'c', not one of a, b"),
        ({"rows": [{"macs": 1, "own-kind": None}]}, "rows[0].own-kind is None, not one of a, b"),
        ({"times": {"a": {"low": 1, "high": 2}, "b c": 1}}, "times.b c is 1, not an object"),
        ({"times": {"a": {"low": 1, "high": 2}, "b": {"low": "1"}}}, "times.b.low is '1', not a number"),
        ({"times": {"a": {"low": 0, "high": 2}}}, "times.a.low is 0, not a number from 1e-06 to 1e+24"),
        ({"times": {"a": {"low": 10**400, "high": 2}}}, "times.a.low is huge, not a number"),
        ({"times": {"a": {"low": 3, "high": 2}}}, "times.a: low is above high"),
        ({"pair": [1]}, "pair is a list of 1, not a list of 2 or null"),
        ({"pair": [1, "x"]}, "pair[1] is 'x', not a number"),
        ({"flag": 1}, "flag is 1, not true or false"),
        ({"data": "no base64"}, "data is 'no base64', not bytes in base64"),
        ({"version": 2}, " is version 2 of the format, this is 3"),
        ({"version": True}, " is version True of the format, this is 3"),
        ({"version": [[[1]]]}, " is version a list of 1 of the format, this is 3"),
        ({"format": "other"}, " is no report (format is 'other', not 'qnas-test')"),
        ({"anything": math.nan}, " is not JSON (invalid character (byte 63))"),
        ({"anything": math.inf}, " is not JSON (invalid character (byte 63))"),
        ({"anything": "\ud800"}, " is not JSON (Input data was truncated)"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_with_its_place_and_what_should_stand_there(
    values: dict[str, Any], said: str
) -> None:
    assert refused(**values).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a.json is not JSON"),
        ("[]", "a.json is no report: write it again"),
        ("null", "a.json is no report: write it again"),
        ("5", "a.json is no report: write it again"),
        ("{}", "a.json is no report (it has no format): write it again"),
        ("[" * 100_000, "a.json is not JSON"),
        ('{"a":' * 100_000, "a.json is not JSON"),
        ('{"format": ' + "9" * 5000 + "}", "a.json is not JSON"),
        ('{"format": 1e999}', "a.json is not JSON"),
        (b'{"format": "\xff"}', "a.json is not JSON"),
    ],
)
def test_what_is_no_document_is_refused(text: str | bytes, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        FILE.parse(text, "a.json")
    assert str(caught.value).startswith(said)
    assert str(caught.value).isprintable()


def test_files_that_cannot_be_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(ModelError, match=r"a\.json cannot be read \(No such file or directory\): check the"):
        FILE.read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"a\.json is no text in UTF-8: write it again"):
        FILE.read(path)
    assert FILE.read_sound(path) is None
    path.write_text(json.dumps(HEAD))
    assert FILE.read_sound(path) == Whole("x")
    monkeypatch.setattr(reading, "LARGEST_FILE", 10)
    with pytest.raises(
        ModelError, match=r"a\.json cannot be read \(it has more than 10 bytes\): check the path"
    ):
        FILE.read(path)


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
def test_what_nests_too_deep_to_be_walked_is_refused(opened: str, closed: str) -> None:
    file = replace(FILE, infinite={"a": math.inf})

    def nested(depth: int) -> str:
        return json.dumps(HEAD)[:-1] + f', "anything": {opened * depth}1{closed * depth}}}'

    assert file.parse(nested(60), "a.json").name == "x"
    with pytest.raises(ModelError, match=r"a\.json is not JSON \(it nests deeper than 64\): write it again"):
        file.parse(nested(450), "a.json")


def test_tables_within_tables_are_no_deeper_than_lists_may_be() -> None:
    with pytest.raises(ModelError, match=r"a\.toml is not TOML \(it nests deeper than 64\): write it again"):
        FILE.parse("a." * 3000 + "a = 1", "a.toml", toml=True)


def test_plain_data_of_other_kinds_is_refused_as_json_is() -> None:
    class Strange:
        def __repr__(self) -> str:
            return "two\nlines"

    for value in (Strange(), {3: 4}, {1, 2}, math.nan, 10**5000):
        for content in (HEAD | {"rows": [{"macs": value}]}, HEAD | {"times": value}, HEAD | {"name": value}):
            with pytest.raises(ModelError) as caught:
                FILE.convert(content, "a.pt")
            assert str(caught.value).isprintable()


def test_null_is_infinite_under_the_keys_that_say_so() -> None:
    @dataclass(frozen=True)
    class Score:
        psnr: float
        note: str | None

    file = Document(Score, "score", "", infinite={"psnr": math.inf})
    assert file.convert({"psnr": None, "note": None}, "") == Score(math.inf, None)


def test_toml_is_read_by_the_same_rules(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('format = "qnas-test"\nversion = 3\nname = 1979-05-27\n')
    with pytest.raises(ModelError, match=r"name is datetime\.date\(1979, 5, 27\), not a text"):
        FILE.read(tmp_path / "a.toml", toml=True)
    (tmp_path / "a.toml").write_text("name = ")
    with pytest.raises(ModelError, match=r"a\.toml is not TOML"):
        FILE.read(tmp_path / "a.toml", toml=True)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["format", "version", "name", "rows", "times", "pair", "flag", "data"]), ANYTHING)
def test_whatever_stands_there_is_read_or_refused_in_one_line(key: str, value: Any) -> None:
    try:
        FILE.parse(json.dumps(HEAD | {key: value}), "a.json")
        return
    except ModelError as error:
        said = str(error)
    assert said.isprintable()
    assert said.startswith("a.json")


def test_text_is_made_printable_and_short() -> None:
    assert printable("a\nb\x1b[31m\u202e\ud800", 20) == "a b?[31m??"
    assert printable("abcdef", 3) == "abc..."


def test_a_sealed_document_is_read_however_it_is_indented_and_refused_once_a_value_differs() -> None:
    sealed = FILE.sealed({"name": "é", "pair": (-0.0, 1e-7)})
    for indent in (None, 4):
        assert FILE.parse(json.dumps(sealed, indent=indent), "a.json").pair == (-0.0, 1e-7)
    for change in ({"name": "e"}, {"pair": (0.0, 1e-7)}, {"new": 1}, {"digest": None}, {"digest": [1]}):
        with pytest.raises(ModelError, match=r"a\.json was changed after it was written"):
            FILE.parse(json.dumps({**sealed, **change}), "a.json")
    del sealed["digest"]
    assert FILE.parse(json.dumps(sealed | {"name": "e"}), "a.json").name == "e"
