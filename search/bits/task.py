"""What `qnas-search bits` was told, as a task."""

from collections.abc import Sequence
from pathlib import Path

from qnas.cost.allocation import Budget, Task, Unit
from qnas.errors import UsageError
from qnas.search.runs.random_search import parse_amount
from qnas.search.space.space_options import parse_image

MOST = 100.0  # percent of 8 bits


def is_float_file(model: str) -> bool:
    """Whether it is a float network of others, not a found.pt or an architecture."""
    return Path(model).suffix.lower() in (".onnx", ".tflite")


def bits_task(
    model: str, images: Sequence[Path], budgets: Sequence[str], output: Path | None, unit: Unit = "bitops",
    image: str = "32x32", report: Path | None = None, force: bool = False, threads: int = 0,
) -> Task:  # fmt: skip
    """The task for `model`, whose file decides the default of `output`. Raises UsageError."""
    ending = ".mixed.calibration.json" if is_float_file(model) else ".mixed.json"
    parsed = parse_budgets(budgets)
    outputs = _outputs(output or Path(model).with_suffix(ending), parsed)
    return Task(tuple(images), parsed, outputs, unit, parse_image(image), report, force, threads)


def parse_budgets(texts: Sequence[str]) -> tuple[Budget, ...]:
    """Budgets out of "50%", of what 8 bits cost, or "2.3G", of units. Raises UsageError, also for equals."""
    found = tuple(map(_budget, texts))
    for index, text in enumerate(texts):
        if text in texts[:index]:
            raise UsageError(f"--budget {text} is given twice: leave one out")
    return found


def _budget(text: str) -> Budget:
    if not text.endswith("%"):
        return Budget(text, None, parse_amount("--budget", text))
    percent = parse_amount("--budget", text[:-1])
    if not 0 < percent <= MOST:
        raise UsageError(f"--budget {text}: write a share of 8 bits from 0% to 100%, or a number, as 2.3G")
    return Budget(text, percent / 100, None)


def _outputs(target: Path, budgets: Sequence[Budget]) -> tuple[Path, ...]:
    """`target` for one budget; for several a file beside it for each: net.calibration.json becomes
    net.50pct.calibration.json."""
    if len(budgets) == 1:
        return (target,)
    stem = target.name.removesuffix(".json").removesuffix(".calibration").removesuffix(".mixed")
    words = [budget.text.replace("%", "pct") for budget in budgets]
    return tuple(target.with_name(f"{stem}.{word}{target.name[len(stem) :]}") for word in words)
