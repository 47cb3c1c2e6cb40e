"""The page of the scoreboard, of its results alone: docs/networks.md of docs/networks.json."""

from collections.abc import Iterator
from typing import Any

Result = dict[str, Any]
RUNTIMES = ("onnxruntime", "LiteRT", "OpenVINO")
STEPS = ("calibration", "formats", "quality", "latency", "rivals")
ABSENT = "AIMET and ai-edge-quantizer: not run."


def table(found: dict[str, Result]) -> Iterator[str]:
    """A row for each network."""
    known = ("network", "scale", "float", "integer", "fidelity", "formats", "integer MACs")
    heads = (*known, *RUNTIMES, "bytes", "NNCF", "best quantize_static")
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for name, row in sorted(found.items()):
        formats = row.get("formats", {})
        quality = row.get("quality", {})
        integer = next((each for label, each in quality.items() if label.startswith("integer")), [None, None])
        onnx_file = formats.get("onnx-qdq", {})
        share = onnx_file.get("integer_macs")
        latency = row.get("latency", {})
        cells = (
            name, f"x{row['calibration']['scale']}" if "scale" in row.get("calibration", {}) else "-",
            decibels(quality.get("float", [None])[0]), decibels(integer[0]), decibels(integer[1]),
            formats_cell(formats), "-" if share is None else f"{share:.0%}",
            *(latency_cell(latency.get(runtime)) for runtime in RUNTIMES),
            f"{onnx_file['bytes']:,}" if "bytes" in onnx_file else "-", *rival_cells(row.get("rivals", {})),
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def decibels(value: float | None) -> str:
    """With two digits."""
    return "-" if value is None else f"{value:.2f}"


def formats_cell(formats: Result) -> str:
    """Those that are written, and whether they are equal to the definition."""
    shown = []
    for name, each in formats.items():
        state = (
            "equal"
            if each.get("equal") and each.get("defined")
            else "near"
            if each.get("equal")
            else "differs"
        )
        shown.append(f"{name}: {'refused' if 'problem' in each else state}")
    return ", ".join(shown) or "-"


def latency_cell(found: Result | None) -> str:
    """A ratio with its interval."""
    if found is None or "ratio" not in found:
        return "-"
    return f"{found['ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def rival_cells(found: Result) -> tuple[str, str]:
    """Fidelity of NNCF, and of the recipe of quantize_static that has the most."""
    scores = {name: each[1] for name, each in found.items() if isinstance(each, list) and each[1] is not None}
    static = {name.split(", ", 1)[1]: score for name, score in scores.items() if name != "NNCF"}
    best = max(static, key=lambda name: static[name], default=None)
    return decibels(scores.get("NNCF")), "-" if best is None else f"{static[best]:.2f} ({best})"


def problems(found: dict[str, Result]) -> Iterator[str]:
    """What was refused or did not run, a line each."""
    for name, row in sorted(found.items()):
        for step in STEPS:
            each = row.get(step, {"problem": "not run"})
            parts = {step: each} if "problem" in each else {f"{step}, {k}": v for k, v in each.items()}
            for what, part in parts.items():
                if isinstance(part, dict) and "problem" in part:
                    yield f"- {name}, {what}: {part['problem'].replace('|', '/')}"


def page(document: Result) -> str:
    """What stands between the marks."""
    lines = [
        document["machine"],
        "",
        *table(document["networks"]),
        "",
        "### Refused, or not run",
        "",
        f"- {ABSENT}",
    ]
    lines += [*problems(document["networks"]), "", "### How much was run", ""]
    lines += [
        f"- {name}: {row['sizes']}" for name, row in sorted(document["networks"].items()) if "sizes" in row
    ]
    return "\n".join(lines) + "\n"
