"""What a gate allows, as written on a command line: "5%", "0.05", "+2%", "1.5G"; read strictly."""

import re
from dataclasses import dataclass

from qnas.errors import UsageError

NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
SHARE = re.compile(rf"({NUMBER})(%?)")
RELATIVE = re.compile(rf"\+({NUMBER})%")
ABSOLUTE = re.compile(rf"({NUMBER})([kMGT]?)")
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
LARGEST_INCREASE = 10.0


@dataclass(frozen=True)
class Limit:
    """The most that is allowed: `value` itself, or where `relative` the old model's times 1 + `value`."""

    value: float
    relative: bool

    def most(self, old: float | None) -> float:
        """In the unit of the quantity. Raises UsageError when a relative limit has no `old` to refer to."""
        if not self.relative:
            return self.value
        if old is None:
            raise UsageError(f"a limit of +{100 * self.value:g}% needs the old model: give --against")
        return old * (1 + self.value)


def parse_increase(option: str, text: str) -> float:
    """Read "5%", "+5%" or "0.05" as 0.05; UsageError when it is neither, or 1000 % and more.

    A plain number of 1 or more is refused: "5" is 5 % to one reader and 500 % to another.
    """
    increase = _share(text.removeprefix("+"))
    plain = "%" not in text
    if increase is None or increase >= LARGEST_INCREASE or (plain and increase >= 1):
        raise UsageError(f"{option} {text}: write a percentage, as 5%, or a fraction below 1, as 0.05")
    return increase


def parse_share(option: str, text: str) -> float:
    """Read "95%" or "0.95" as 0.95; UsageError when it is neither, or more than 1."""
    share = _share(text)
    if share is None or share > 1:
        raise UsageError(f"{option} {text}: write a share from 0 to 1, as 0.95 or 95%")
    return share


def parse_limit(option: str, text: str) -> Limit:
    """Read "+2%" (over the old model's), or a count as "120000" or "1.5G"; UsageError when it is neither.

    k, M, G and T are powers of 1000.
    """
    if found := RELATIVE.fullmatch(text):
        return Limit(float(found[1]) / 100, relative=True)
    if found := ABSOLUTE.fullmatch(text):
        return Limit(float(found[1]) * UNITS[found[2]], relative=False)
    raise UsageError(f"{option} {text}: write +2% (over the old model) or a number, as 120000, 250M or 1.5G")


def _share(text: str) -> float | None:
    found = SHARE.fullmatch(text)
    return None if found is None else float(found[1]) / (100 if found[2] else 1)
