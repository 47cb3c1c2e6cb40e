"""Genotypes are read by a grammar and never evaluated; what is wrong is named by line and column."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.errors import ArchitectureError
from qnas.network.architecture import Choice
from qnas.search.imports.genotype import Genotype, parse_genotype, read_genotype

OPERATIONS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1)
PAIRS = st.tuples(OPERATIONS, st.integers(0, 99))
BLOCK = st.tuples(st.lists(PAIRS, min_size=4, max_size=4), st.lists(PAIRS, min_size=3, max_size=3))
BLOCKS = st.lists(BLOCK, min_size=1, max_size=3)
PAIR = "('simple_3x3', 8)"
PARTS = {
    "body": f"[[{', '.join([PAIR] * 4)}]]",
    "skip": f"[[{', '.join([PAIR] * 3)}]]",
    "upsample": f"[{PAIR}]",
    "tail": f"[{PAIR}]",
}


def text(**changes: str) -> str:
    return f"Genotype_SR({', '.join(f'{name}={value}' for name, value in (PARTS | changes).items())})"


@given(BLOCKS, PAIRS, PAIRS, st.booleans())
def test_what_python_prints_is_read_back(
    blocks: list[tuple[list[tuple[str, int]], ...]], upsample: tuple[str, int], tail: tuple[str, int],
    head: bool,
) -> None:  # fmt: skip
    body, skip = ([block[index] for block in blocks] for index in range(2))
    older = f"head={[tail, tail]!r}, " if head else ""
    printed = f"Genotype_SR({older}body={body!r}, tail={[tail]!r}, skip={skip!r}, upsample={[upsample]!r})\n"
    expected = [tuple(tuple(Choice(*pair) for pair in layers) for layers in part) for part in (body, skip)]
    assert parse_genotype(printed, "x.gen") == Genotype(*expected, Choice(*upsample), Choice(*tail))


def test_spaces_lines_double_quotes_and_trailing_commas_do_not_matter() -> None:
    wide = text().replace("'", '"').replace(",", " ,\n").replace("]", ",]")
    assert parse_genotype(wide, "x.gen") == parse_genotype(text(), "x.gen")


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ("", "line 1, column 1: the end of the file in place of Genotype_SR; a genotype reads Genotype_SR"),
        ("Genotype(", "line 1, column 1: 'Genotype' in place of Genotype_SR"),
        ("Genotype_SR[", r"line 1, column 12: '\[' in place of '\('"),
        ("Genotype_SR(\n  body=8)", r"line 2, column 8: '8' in place of '\['"),
        ("Genotype_SR(legs=[])", "'legs' in place of one of the parts head, body, tail, skip, upsample"),
        ("Genotype_SR(tail=[], tail=[])", "'tail' in place of one of the parts head, body, skip, upsample"),
        ("Genotype_SR(tail=[f('x')])", r"column 19: 'f' in place of a pair \('simple_3x3', 8\)"),
        ("Genotype_SR(tail=[(x, 8)])", "column 20: 'x' in place of the quoted name of an operation"),
        ("Genotype_SR(tail=[('a b', 8)])", 'column 20: "\'" in place of the quoted name of an operation'),
        (
            f"Genotype_SR(tail=[('{'a' * 65}', 8)])",
            'column 20: "\'" in place of the quoted name of an operation',
        ),
        ("Genotype_SR(tail=[('a', -8)])", "column 25: '-' in place of a number of bits"),
        ("Genotype_SR(tail=[('a', 123)])", "column 25: '123' in place of a number of bits"),
        ("Genotype_SR(tail=[('a', 8, 8)])", r"column 26: ',' in place of '\)'"),
        ("Genotype_SR(tail=[('a', 8) ('b', 8)])", r"column 28: '\(' in place of ',' or ']'"),
        (text() + " or None", "'or' in place of the end"),
        (text(body="[]"), "body has 0 blocks and skip 1: give both one list for each block"),
        (text(body=f"[[{PAIR}]]"), r"body\[0\] has 1 layers, a block of this space has 4"),
        (text(skip=f"[[{PAIR}]]"), r"skip\[0\] has 1 layers, a block of this space has 3"),
        (text(tail="[]"), "tail has 0 layers, this space has one"),
        (text(upsample=f"[{PAIR}, {PAIR}]"), "upsample has 2 layers, this space has one"),
        (text().replace("tail=", "head="), "has no part 'tail': it needs body, skip, upsample and tail"),
    ],
)
def test_another_text_is_refused_where_it_differs(content: str, advice: str) -> None:
    with pytest.raises(ArchitectureError, match=rf"^x\.gen\b.*{advice}"):
        parse_genotype(content, "x.gen")


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_text_is_read_or_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text())))
    gone = data.draw(st.integers(0, 3))
    damaged = text()[:at] + data.draw(st.text(max_size=3)) + text()[at + gone :]
    with suppress(ArchitectureError):
        assert len(parse_genotype(damaged, "x.gen").body) == 1


@pytest.mark.parametrize("content", ["[" * 100_000, "Genotype_SR(body=" + "[" * 100_000, " " * 1_000_000])
def test_a_deep_or_an_endless_text_is_refused(content: str) -> None:
    with pytest.raises(ArchitectureError, match=r"x\.gen, line 1, column \d+: "):
        parse_genotype(content, "x.gen")


@pytest.mark.parametrize(
    ("content", "advice"),
    [(b"\xff", "is not UTF-8: name a .gen file"), (b" " * (2**20 + 1), "has more than 1048576 characters")],
)
def test_a_file_that_is_no_text_of_that_size_is_refused(tmp_path: Path, content: bytes, advice: str) -> None:
    path = tmp_path / "x.gen"
    path.write_bytes(content)
    with pytest.raises(ArchitectureError, match=advice):
        read_genotype(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ArchitectureError, match=r"cannot read .*x\.gen \(No such file or directory\): name a"
    ):
        read_genotype(tmp_path / "x.gen")
