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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

import torch

from qnas.cost.network_cost import network_cost
from qnas.errors import LONGEST, QnasError
from qnas.export.from_qdq.reader import read_qdq
from qnas.export.inspection.onnx_rows import onnx_rows
from qnas.export.inspection.tflite_rows import tflite_rows
from qnas.export.integers import integer_network
from qnas.integer.interpreter import run
from qnas.network.architecture import find_architecture
from qnas.network.lowering import lower
from qnas.onnx.cost import model_cost
from qnas.search.imports.paper_import import import_checkpoint
from qnas.testing.format_mutations import change_flatbuffer, change_offset, change_protobuf, change_wire
from qnas.testing.mutations import (
    SENTINEL,
    Mutation,
    Spoiled,
    change_archive,
    change_entry,
    change_json,
    change_pickle,
    change_tokens,
    changed_tree,
    mutated,
    plain_archive,
)
from qnas.testing.seed_files import (
    SIZE,
    Seeds,
    checkpoints,
    documents,
    found_files,
    genotypes,
    models,
    tflite_files,
)
from qnas.testing.small_networks import pixels
from qnas.tflite.reader import read_tflite
from qnas.tflite.session import LiteRtSession
from qnas.torch.checkpoint import load_found, read_plain, save_plain

CPU_SECONDS = 2
WALL_SECONDS = 60  # of a file that waits instead of computing
MEMORY = 4 << 30  # address space that one file may add
RESIDENT = 1 << 30  # and memory
FILES_PER_WORKER = 2000


@dataclass(frozen=True)
class Reader:
    """A way into qnas: the ending of its files, valid ones, mutations of its own, and what reads a file."""

    title: str
    suffix: str
    seeds: Callable[[], Seeds]
    fields: tuple[Mutation, ...]
    read: Callable[[Path], object]


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


# Readers --------------------------------------------------------------------------------------------------


def _read_architecture(path: Path) -> None:
    network_cost(lower(find_architecture(str(path))), *SIZE)


def _read_found(path: Path) -> None:
    run(integer_network(load_found(path)), pixels(*SIZE))


def _read_genotype(path: Path) -> None:
    """With the checkpoint that fits the first of the valid ones."""
    checkpoint = path.with_name("valid.pth.tar")
    if not checkpoint.exists():
        checkpoint.write_bytes(checkpoints()["adq"])
    import_checkpoint(checkpoint, path)


def _read_checkpoint(path: Path) -> None:
    genotype = path.with_name("valid.gen")
    if not genotype.exists():
        genotype.write_bytes(genotypes()["varied"])
    import_checkpoint(path, genotype)


def _read_qdq(path: Path) -> None:
    run(read_qdq(path), pixels(37, 53))


def _read_graph(path: Path) -> None:
    model_cost(path, {"image": (1, 3, *SIZE)})
    onnx_rows(path, *SIZE)


def _run_tflite(path: Path) -> None:
    LiteRtSession(path.read_bytes()).run(pixels(*SIZE))


def change_document(data: bytes, other: bytes, random: Random) -> bytes:
    """A checkpoint with a value of its document changed: another number, another kind of tensor."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.pt"
        path.write_bytes(data)
        try:
            document = changed_tree(read_plain(path), random, lambda value: _odd(value, random))
            save_plain(path, document, True)
            return plain_archive(path.read_bytes())
        except Exception:  # earlier damage, or what torch does not save
            raise Spoiled from None


_ODD = (
    0, 1, -1, 3, 8, 32, 64, 512, 513, 10**30, 8.0, 2.5, True, None, "x", "paper", "basic", "growth4_9x9", [],
    {}, (), set(),
)  # fmt: skip


def _odd(value: Any, random: Random) -> Any:
    if not isinstance(value, torch.Tensor):
        return random.choice((*_ODD, [value], torch.ones(3)))
    flat = value.reshape(-1)
    odd: tuple[Callable[[], Any], ...] = (
        lambda: value.double(), lambda: value.half(), lambda: value.to(torch.int8), lambda: -value,
        lambda: value * 1e38, lambda: value * 0, lambda: value * float("nan"), lambda: value.tolist(),
        lambda: flat, lambda: None, lambda: value[None], lambda: value[:1].expand(value.shape),
        lambda: value[:0], lambda: value.to_sparse(),
        lambda: value.to("meta"), lambda: value.to(torch.complex64), lambda: torch.nn.Parameter(value),
        lambda: flat[:1].expand(10**9), lambda: flat[:1].reshape(1, 1, 1, 1).expand(512, 12, 1, 1),
        lambda: value.transpose(0, -1), lambda: value * 1e-38,
        lambda: torch.quantize_per_tensor(value, 1, 0, torch.qint8),
    )  # fmt: skip
    return random.choice(odd)()


_ZIP = (change_entry, change_archive, change_pickle, change_pickle, change_document, change_document)
_PROTOBUF = (change_protobuf, change_protobuf, change_protobuf, change_wire)
_FLATBUFFER = (change_flatbuffer, change_flatbuffer, change_offset)
READERS: dict[str, Reader] = {
    "architecture": Reader(
        "architecture, JSON", ".json", documents, (change_json, change_tokens), _read_architecture
    ),
    "genotype": Reader("genotype, `.gen`", ".gen", genotypes, (change_tokens,), _read_genotype),
    "found": Reader("`found.pt`", ".pt", found_files, _ZIP, _read_found),
    "checkpoint": Reader("checkpoint of the paper", ".tar", checkpoints, _ZIP, _read_checkpoint),
    "onnx": Reader("ONNX, as an integer network", ".onnx", models, _PROTOBUF, _read_qdq),
    "graph": Reader("ONNX, as a graph (cost, shapes)", ".onnx", models, _PROTOBUF, _read_graph),
    "tflite": Reader(
        "TFLite, as layers", ".tflite", tflite_files, _FLATBUFFER,
        lambda path: tflite_rows(read_tflite(path)),
    ),
    "litert": Reader(
        "TFLite, run in LiteRT", ".tflite", tflite_files, _FLATBUFFER, _run_tflite
    ),
}  # fmt: skip


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
    path, most = folder / f"file{READERS[reader].suffix}", _status("VmRSS") + RESIDENT
    for index in indices:
        path.write_bytes(damaged_file(reader, seed, index))
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # its signal ends the process, native code too
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
            yield Outcome(index, _ended(worker.exitcode), CPU_SECONDS, "")
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
