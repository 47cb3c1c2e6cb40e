"""What a search tells while it runs: log.jsonl, and the same numbers for TensorBoard."""

import errno
import json
import time
from collections.abc import Iterator
from pathlib import Path

from qnas.documents.reading import decode
from qnas.errors import OutputError, UsageError
from qnas.one_writer import locked
from qnas.search.runs.event_files import EventFile
from qnas.search.runs.log_records import EpochRecord, LogRecord, StepRecord, plain, record_from
from qnas.search.runs.run_folder import EVENTS, LOG
from qnas.search.space.candidate_costs import CandidateCosts
from qnas.search.supernet.alphas import certainty, softmax
from qnas.search.supernet.state import Search
from qnas.search.supernet.supernet_search import StepNews

RECORDS_AN_EPOCH = 50


class SearchLog:
    """The log of one folder; no other process writes it. Raises UsageError, OutputError.

    Records are in the order of their steps, so `cut` brings it back to what a checkpoint knows: a killed and
    resumed search has the log of an uninterrupted one, but for times. TensorBoard's files are written anew
    then, from the log.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG
        self._losses: list[float] = []  # of the epoch at hand
        self._last = 0.0
        self._begun = time.time()
        try:
            self._file = self._path.open("ab+", buffering=0)  # what is written cannot fail again at the end
        except OSError as error:
            raise self._refused(error) from error
        try:
            if locked(self._file) is False:
                raise UsageError(f"another process searches in {folder}: wait for it, or stop it")
            self._events = EventFile(folder / EVENTS)
        except Exception:
            self._file.close()
            raise

    def close(self) -> None:
        """Let others write."""
        self._events.close()
        self._file.close()

    def cut(self, step: int, seconds: float = 0.0) -> None:
        """Forget what came after `step`, which a state of so many seconds has reached."""
        self._begun = time.time() - seconds
        self._losses.clear()
        end = 0
        self._events.restart()
        for length, record in _records(self._path):
            if record.step > step:
                break
            end += length
            self._note(record)
        try:
            self._file.truncate(end)
        except OSError as error:
            raise self._refused(error) from error

    def step(self, search: Search, news: StepNews) -> None:
        """Write a record of every few steps."""
        self._last = news.loss
        if news.step % max(1, search.recipe.epoch_steps // RECORDS_AN_EPOCH) == 0:
            self._write(_step(news, search.seconds))

    def epoch(self, search: Search, costs: CandidateCosts) -> None:
        """Write what the epoch ended with; its loss is the mean of the step records'."""
        losses = self._losses or [self._last]  # none where a log was lost
        loss = sum(losses) / len(losses)
        self._write(_epoch(search, costs, loss))

    def _write(self, record: LogRecord) -> None:
        line = json.dumps(plain(record)).encode() + b"\n"
        try:
            if self._file.write(line) != len(line):  # how a disk with a little room left says so
                raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise self._refused(error) from error
        self._note(record)

    def _note(self, record: LogRecord) -> None:
        if isinstance(record, StepRecord):
            self._losses.append(record.loss)
        else:
            self._losses.clear()
        self._events.write(record.step, self._begun + record.seconds, _scalars(record))

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self._path}: {error.strerror}, free space or choose another folder"
        )


def _records(path: Path) -> Iterator[tuple[int, LogRecord]]:
    """(length in bytes, record) of every whole line, up to the first that is damaged."""
    with path.open("rb") as file:
        for line in file:
            try:
                record = record_from(decode(line), str(path))
            except (ValueError, UsageError):
                return
            if not line.endswith(b"\n"):
                return
            yield len(line), record


def _step(news: StepNews, seconds: float) -> StepRecord:
    known = {name: value for name, value in vars(news).items() if name != "seconds_left"}
    return StepRecord(**known, seconds=seconds)


def _epoch(search: Search, costs: CandidateCosts, loss: float) -> EpochRecord:
    """What the alphas say, and what that costs."""
    space, alphas = search.space, [alpha.detach().cpu() for alpha in search.supernet.alphas]
    choices = search.choices()
    expected = costs.fixed
    for name, alpha in zip(space.variables, alphas, strict=True):
        for op, row in zip(space.candidates(name), softmax(alpha).tolist(), strict=True):
            expected += sum(
                share * costs.searched[name][op, b] for share, b in zip(row, space.bits, strict=True)
            )
    return EpochRecord(
        epoch=search.step // search.recipe.epoch_steps - 1,
        step=search.step,
        loss=loss,
        alphas={name: alpha.tolist() for name, alpha in zip(space.variables, alphas, strict=True)},
        choices={name: {"op": choice.op, "bits": choice.bits} for name, choice in choices.items()},
        certainty=dict(zip(space.variables, certainty(alphas), strict=True)),
        cost=float(costs.of(choices)),
        expected_cost=expected,
        seconds=search.seconds,
    )


def _scalars(record: LogRecord) -> dict[str, float]:
    """A record's numbers by TensorBoard's tags; alphas by variable and their place in [O, B]."""
    if isinstance(record, StepRecord):
        tags = {
            "loss/weights": record.loss,
            "loss/alphas": record.alpha_loss,
            "cost/expected": record.expected_cost,
            "cost/best": record.best_cost,
            "cost/penalty": record.penalty,
            "entropy/nats": record.entropy,
            "entropy/weight": record.entropy_weight,
            "speed/images_per_second": record.images_per_second,
        }
        return {tag: value for tag, value in tags.items() if value is not None}
    numbers = {"epoch/loss": record.loss, "epoch/cost": record.cost}
    numbers["epoch/expected_cost"] = record.expected_cost
    numbers |= {f"certainty/{name}": value for name, value in record.certainty.items()}
    for name, rows in record.alphas.items():
        for op, row in enumerate(rows):
            numbers |= {f"alpha/{name}/{op}.{b}": value for b, value in enumerate(row)}
    return numbers
