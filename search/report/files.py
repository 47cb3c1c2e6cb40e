"""JSON files of a search, as its pages read them."""

from pathlib import Path

from qnas.json_fields import Fields, as_fields, read_fields

ADVICE = "let qnas-search write it again"
LONGEST = 300  # characters of a text on a page


def read_record(path: Path) -> Fields:
    """What a file holds. Raises UsageError."""
    return read_fields(path, "record of a search", ADVICE)


def record(value: object, where: str) -> Fields:
    """A JSON value that is to be an object. Raises UsageError."""
    return as_fields(value, where, "record of a search", ADVICE)
