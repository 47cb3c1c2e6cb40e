"""Numbers as the pages of a search show them."""

import math

MOST_DIGITS = 9  # after the point
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def si(value: float, unit: str = "") -> str:
    """Three digits and a prefix: "2.43 GMACs"."""
    if value == 0:
        return f"0 {unit}".strip()
    rounded = float(f"{value:.3g}")
    scale, prefix = next((each for each in PREFIXES if abs(rounded) >= each[0]), (1.0, ""))
    digits = min(max(0, 2 - math.floor(math.log10(abs(rounded) / scale))), MOST_DIGITS)
    return f"{rounded / scale:.{digits}f} {prefix}{unit}".strip()


def percent(share: float) -> str:
    """Two digits: "42%", "4.2%", "0.4%", "<0.1%"."""
    hundred = 100 * share
    if 0 < hundred < 0.05:
        return "<0.1%"
    return f"{hundred:.{0 if hundred >= 9.95 or hundred == 0 else 1}f}%"


def short(value: float) -> str:
    """Write a number as people do: "1e-5", "0.001"."""
    return f"{value:g}".replace("e-0", "e-")
