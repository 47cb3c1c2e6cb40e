"""Mutated files of every kind that qnas reads, and what its readers do with them.

A file is reproduced by (reader, seed, index). Each is read in a worker process under limits: a crash, a hang
and an allocation bomb end or mark that process, not this one. What may come of a file is that it is read, or
refused by an error of ours in one line; all else is a failure.
"""

import faulthandler
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random

from qnas.errors import LONGEST, QnasError
from qnas.testing.fuzz_readers import READERS
from qnas.testing.mutations import SENTINEL, mutated
from qnas.testing.seed_files import checkpoints

WALL_SECONDS = 60  # of a file that waits instead of computing
MEMORY = 4 << 30  # address space that one file may add
FILES_PER_WORKER = 2000


@dataclass(frozen=True)
class Outcome:
    """What came of file `index`: "read", "refused" or the kind of failure; CPU seconds; what was said."""

    index: int
    verdict: str
    seconds: float
    said: str

    @property
    def failed(self) -> bool:
        return self.verdict not in ("read", "refused")


def damaged_file(reader: str, seed: int, index: int) -> bytes:
    """The file of that index: the same whenever it is asked for."""
    seeds, random = READERS[reader].seeds(), Random(f"{reader} {seed} {index}")
    names = sorted(seeds)
    data, other = seeds[random.choice(names)], seeds[random.choice(names)]
    return mutated(data, other, READERS[reader].fields, random)


# Limits and workers ---------------------------------------------------------------------------------------


def read_one(reader: str, index: int, path: Path) -> Outcome:
    """Read the file at `path` and say what came of it."""
    before, verdict, said = time.process_time(), "read", ""
    try:
        READERS[reader].read(path)
    except QnasError as error:
        verdict, said = "refused", str(error)
        if _out_of_memory(error):
            verdict = "out of memory"
        elif not said.isprintable() or len(said) > LONGEST:
            verdict = "an error of more than one short line"
    except MemoryError as error:
        verdict, said = "out of memory", repr(error)
    except BaseException:
        verdict, said = "not an error of ours", traceback.format_exc()
    sentinel = path.with_name(SENTINEL)
    if sentinel.exists():
        sentinel.unlink()
        verdict = "executed"
    return Outcome(index, verdict, time.process_time() - before, said[:4000])


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether the cause of an error is that memory gave out."""
    while error is not None:
        text = str(error)
        if isinstance(error, MemoryError) or "allocate memory" in text or "bad_alloc" in text:
            return True
        error = error.__cause__ or error.__context__
    return False


def _work(reader: str, seed: int, indices: range, folder: Path, to_parent: Connection) -> None:
    """In a worker: read one file after the other, until one takes too much memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.disable()
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + MEMORY,) * 2)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # runtimes complain about damage there
    os.chdir(folder)  # where a planted command would leave its mark
    path, most = (
        folder / f"file{READERS[reader].suffix}",
        _status("VmRSS") + int(READERS[reader].gigabytes * 2**30),
    )
    for index in indices:
        path.write_bytes(damaged_file(reader, seed, index))
        signal.setitimer(
            signal.ITIMER_PROF, READERS[reader].seconds
        )  # its signal ends the process, native code too
        outcome = read_one(reader, index, path)
        signal.setitimer(signal.ITIMER_PROF, 0)
        too_much = _status("VmHWM") > most
        to_parent.send(replace(outcome, verdict="out of memory") if too_much else outcome)
        if too_much:
            break
    os._exit(0)


def _status(field: str) -> int:
    """A size of this process in bytes."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(fields[field].split()[0])


def fuzz(reader: str, seed: int, files: int, first: int = 0) -> Iterator[Outcome]:
    """What came of each file from `first` on, in order; workers that end are replaced."""
    READERS[reader].seeds()  # made once, before the workers are
    checkpoints()
    context = multiprocessing.get_context("fork")
    index = first
    while index < first + files:
        indices = range(index, min(first + files, index + FILES_PER_WORKER))
        ours, theirs = context.Pipe(duplex=False)
        with tempfile.TemporaryDirectory() as folder:
            worker = context.Process(target=_work, args=(reader, seed, indices, Path(folder), theirs))
            worker.start()
            theirs.close()
            for outcome in _received(ours, worker):
                yield outcome
                index = outcome.index + 1
        if worker.exitcode:
            yield Outcome(index, _ended(worker.exitcode), READERS[reader].seconds, "")
            index += 1


def _received(connection: Connection, worker: BaseProcess) -> Iterator[Outcome]:
    """What `worker` sends until it ends; it is ended when it says nothing for long."""
    try:
        while connection.poll(WALL_SECONDS):
            yield connection.recv()
        worker.kill()
    except EOFError:
        pass
    except BaseException:  # Ctrl-C
        worker.kill()
        raise
    finally:
        worker.join()


def _ended(code: int) -> str:
    """What the exit code of a worker says of the file that it read."""
    if code in (-signal.SIGPROF, -signal.SIGKILL):
        return "hang"
    return f"crash, {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
