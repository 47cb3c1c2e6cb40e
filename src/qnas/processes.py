"""Processes that do not outlive the one that started them, and that are read within a time and a size."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO

PR_SET_PDEATHSIG = 1  # linux/prctl.h
ENDING = 2.0  # seconds that a program has to end by itself
KEPT_ERRORS = 1 << 13  # bytes of the end of stderr
PIECE = 1 << 16  # bytes read or written at once
_GUARD = ("/bin/sh", "-c", "read _; kill -KILL 0")
_running: set[Program] = set()


def die_with_parent() -> None:
    """Ask the system to kill this process when the thread that started it ends, as by SIGKILL or a crash.

    To be called in a child right after its start. Does nothing where the system is not Linux.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class TooMuch(Exception):
    """A program says more than it may."""


@dataclass(frozen=True)
class Said:
    """What a program said until it ended; of `errors` the end. A negative `status` is a signal."""

    status: int
    output: bytes
    errors: str


class Program:
    """A running program that is spoken to through pipes; nobody has to trust it.

    It and its children are a process group, with a guard in it that kills the group when this process is
    gone, however that ended: the guard reads from a pipe that nobody else can write to. They get no Ctrl-C.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start it. Raises OSError."""
        pipe, silent = subprocess.PIPE, subprocess.DEVNULL
        self._guard = subprocess.Popen(_GUARD, stdin=pipe, stdout=silent, stderr=silent, process_group=0)
        try:
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, env=environment,
                process_group=self._guard.pid,
            )  # fmt: skip
            self._selector = selectors.DefaultSelector()
        except BaseException:
            self._kill()
            raise
        self._unsent, self._said, self._errors = bytearray(), bytearray(), bytearray()
        self._in, self._out, self._err = map(
            _pipe, (self.process.stdin, self.process.stdout, self.process.stderr)
        )
        for stream in (self._in, self._out, self._err):
            os.set_blocking(stream.fileno(), False)
        for stream in (self._out, self._err):
            self._selector.register(stream, selectors.EVENT_READ)
        _running.add(self)

    def ask(self, line: bytes, seconds: float, longest: int) -> bytes:
        """Send a line, and return the line of at most `longest` bytes that answers it, both without ends.

        Raises TimeoutError after `seconds`, EOFError when the program has closed its output, as by its end,
        TooMuch when it says more than that line.
        """
        end = time.monotonic() + seconds
        if self._in.closed:
            raise EOFError
        self._unsent += line + b"\n"
        self._selector.register(self._in, selectors.EVENT_WRITE)
        while b"\n" not in self._said[-PIECE:]:
            if not self._open(self._out):
                raise EOFError
            self._step(end, longest)
        if self._unsent or self._said.index(b"\n") != len(self._said) - 1:
            raise TooMuch
        said = bytes(self._said[:-1])
        self._said.clear()
        return said

    def wait(self, seconds: float, longest: int) -> Said:
        """What it says until it ends. Raises TimeoutError after `seconds`, TooMuch beyond `longest` bytes."""
        if self not in _running:
            return Said(self.process.returncode, bytes(self._said), self.errors)
        end = time.monotonic() + seconds
        self._close(self._in)
        while self._open(self._out) or self._open(self._err):
            self._step(end, longest)
        try:
            status = self.process.wait(max(end - time.monotonic(), 0))
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error
        return Said(status, bytes(self._said), self.errors)

    @property
    def errors(self) -> str:
        """The end of what it has written to stderr so far."""
        return self._errors.decode("utf-8", "replace")

    def close(self, patience: float = ENDING) -> None:
        """End it, by force after `patience` seconds, and its children at once; harmless when it has ended."""
        if self not in _running:
            return
        self._close(self._in)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        self._kill()
        self.process.wait()
        for stream in (self._out, self._err):
            self._close(stream)
        self._selector.close()
        _running.discard(self)

    def kill(self) -> None:
        """Kill it and its children; `close` is still to be called."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._guard.pid, signal.SIGKILL)

    def _kill(self) -> None:
        self.kill()
        self._guard.communicate()  # closes the pipe and reaps it

    def _step(self, end: float, longest: int) -> None:
        """Wait until something can be read or written, and do it; raises as `ask` does."""
        left = end - time.monotonic()
        ready = self._selector.select(left) if left > 0 else []
        if not ready:
            raise TimeoutError
        for key, _ in ready:
            if key.fileobj is self._in:
                self._send()
            elif not (piece := os.read(key.fd, PIECE)):
                self._selector.unregister(key.fileobj)
            elif key.fileobj is self._err:
                self._errors = (self._errors + piece)[-KEPT_ERRORS:]
            else:
                self._said += piece
        if len(self._said) > longest:
            raise TooMuch

    def _send(self) -> None:
        try:
            del self._unsent[: os.write(self._in.fileno(), self._unsent[:PIECE])]
        except OSError:
            self._unsent.clear()  # it reads no more: what it says, or its end, comes through the other pipes
        if not self._unsent:
            self._selector.unregister(self._in)

    def _open(self, stream: IO[bytes]) -> bool:
        return not stream.closed and stream in self._selector.get_map()

    def _close(self, stream: IO[bytes]) -> None:
        if self._open(stream):
            self._selector.unregister(stream)
        stream.close()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def run(
    command: Sequence[str], seconds: float, longest: int, environment: Mapping[str, str] | None = None
) -> Said:
    """Run a program that is given nothing to its end. Raises OSError, and as `Program.wait` does."""
    program = Program(command, environment)
    try:
        return program.wait(seconds, longest)
    finally:
        program.close(0)


def ending(status: int) -> str:
    """In words, how a process with that `Said.status` ended."""
    if -status in set(signal.Signals):
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


@contextlib.contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that wait for programs; where the body is interrupted, the programs are killed."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for program in list(_running):
            program.kill()
        raise
    finally:
        pool.shutdown()
