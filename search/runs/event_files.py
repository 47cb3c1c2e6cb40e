"""Event files for TensorBoard, decision 0014."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from qnas.errors import OutputError, UsageError

VERSION = "brain.Event:2"  # what every reader of these files expects first


class EventFile:
    """Scalars in `folder`, written in the caller's thread: a full disk is an OutputError there.

    Raises UsageError without tensorboardX, OutputError.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX.proto.event_pb2 import Event
            from tensorboardX.proto.summary_pb2 import Summary
            from tensorboardX.record_writer import RecordWriter
        except ModuleNotFoundError as error:
            raise UsageError(
                'the log of a search needs tensorboardX, which is not installed: pip install "qnas[search]"'
            ) from error
        self._folder = folder
        self._writer_of, self._event, self._summary = RecordWriter, Event, Summary
        self._writer: Any = None

    def restart(self) -> None:
        """Remove what the folder has, and begin a file. Raises OutputError."""
        self.close()
        try:
            self._folder.mkdir(exist_ok=True)
            for old in self._folder.glob("events.out.tfevents.*"):
                old.unlink()
            now = time.time()
            self._writer = self._writer_of(str(self._folder / f"events.out.tfevents.{now:.0f}.search"))
        except OSError as error:
            raise self._refused(error) from error
        self._append(self._event(wall_time=now, file_version=VERSION))

    def write(self, step: int, wall_time: float, scalars: Mapping[str, float]) -> None:
        """Add values of one step. Raises OutputError."""
        values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._append(self._event(wall_time=wall_time, step=step, summary=self._summary(value=values)))

    def _append(self, event: Any) -> None:
        try:
            self._writer.write(event.SerializeToString())
            self._writer.flush()
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """What could not be written was told before."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()
            self._writer = None

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self._folder}: {error.strerror}, free space or choose another folder"
        )
