"""A digest that a document carries of itself: who reads it again notices that it was changed."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

DIGEST = "digest"  # the key
LARGEST = 1 << 28  # characters: data of few bytes may hold the same list a billion times
A_PART = 256  # characters that a number or a comma takes as long as


def digest_of(value: object, default: Callable[[Any], Any] | None = None) -> str:
    """The SHA-256 of plain data as JSON, in hexadecimal; indents, and how numbers are spelled, do not count.

    `default` makes plain data of what JSON has not. Raises TypeError, ValueError or RecursionError for data
    that is not plain, or endless.
    """
    digest, length = hashlib.sha256(), 0
    for part in json.JSONEncoder(default=default).iterencode(value):
        length += len(part) + A_PART
        if length > LARGEST:
            raise ValueError("too long")
        digest.update(part.encode())
    return digest.hexdigest()
