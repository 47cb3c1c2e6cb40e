"""Android devices through adb: pushes the model and a benchmark program, runs it, reads what it prints.

Nothing of qnas runs there. Every burst starts the program anew, which loads the model and warms up by itself.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
import signal
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from qnas import __version__
from qnas.errors import ModelError, UsageError, printable, system_error
from qnas.export.formats.table import file_kind
from qnas.processes import Said, TooMuch, run
from qnas.runtime_bench.environment import Environment
from qnas.runtime_bench.machine_state import MOST, State
from qnas.runtime_bench.model_files import ModelFiles, sha256_of
from qnas.runtime_bench.profile.peak import Peak
from qnas.runtime_bench.workers.adb_tools import TOOLS, Call, Printed
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.runtime_bench.workers.protocol import Loaded, check_times
from qnas.runtimes.executed import ExecutedNode
from qnas.runtimes.inputs import parse_shape, resolve_shapes
from qnas.runtimes.names import DeviceName
from qnas.temporary import temporary_folder

LONGEST_TEXT = 1 << 24  # bytes that a program may print
LONGEST_FILE = 1 << 28  # and write
LONGEST_FACT = 200  # characters
FOLDER = "/data/local/tmp/qnas"
BURST = 150_000_000  # ns: a start of the program costs a second
MOST_INFERENCES = 100_000  # of a burst
_END = "qnas-status:"
_STATE = """cd /sys/devices/system/cpu || exit
echo cur $(cat cpu[0-7]/cpufreq/scaling_cur_freq)
echo min $(cat cpu[0-7]/cpufreq/cpuinfo_min_freq)
echo max $(cat cpu[0-7]/cpufreq/cpuinfo_max_freq)
echo governor $(cat cpu[0-7]/cpufreq/scaling_governor | sort -u)
echo load $(cat /proc/loadavg)
echo memory $(grep MemAvailable /proc/meminfo)
echo thermal $(dumpsys thermalservice | grep 'Thermal Status')"""
_FACTS = """for each in ro.product.model ro.soc.model ro.build.version.release; do getprop $each; done
uname -m; nproc"""


class Adb:
    """One device. Raises UsageError when adb or the device is not there, ModelError when it goes away."""

    def __init__(self, serial: str, patience: float) -> None:
        self.serial, self._patience = serial, patience
        state = self._adb("get-state")
        if state.status != 0 or _text(state).strip() != "device":
            raise UsageError(
                f"adb:{serial}: {_last(state) or 'it does not answer'}; see `adb devices`, allow debugging"
            )

    def shell(self, command: str) -> str:
        """What `command` prints there, errors too; ModelError, with its last line, when it fails."""
        done = self._adb("shell", f"{{ {command}\n}} 2>&1; status=$?; echo; echo {_END}$status")
        printed, mark, status = _text(done).rpartition(_END)
        if not mark:
            raise ModelError(f"adb:{self.serial}: the connection ended: {_last(done) or 'see `adb devices`'}")
        if status.strip() != "0":
            raise ModelError(f"adb:{self.serial}: {_failure(status.strip(), printed)}")
        return printed

    def keep(self, file: Path, digest: str, folder: str) -> str:
        """The path there of `file`, pushed into a folder named by the digest if it is not there yet."""
        there = f"{FOLDER}/{folder}/{file.name}"
        if self.shell(f"test -f {shlex.quote(there)} && echo yes || true").strip() != "yes":
            self.shell(f"mkdir -p {FOLDER}/{folder}")
            part = f"{FOLDER}/{folder}/{digest}.part"
            pushed = self._adb("push", str(file), part)
            if pushed.status != 0:
                raise ModelError(
                    f"{file} cannot be pushed to adb:{self.serial}: {_last(pushed)}; free space there"
                )
            self.shell(f"chmod 755 {part} && mv {part} {shlex.quote(there)}")
        return there

    def read(self, there: str) -> bytes:
        """What the file `there` holds; b"" where there is none, or nothing that can be read."""
        return self._adb("exec-out", f"cat {there} 2>/dev/null", longest=LONGEST_FILE).output

    def _adb(self, *words: str, longest: int = LONGEST_TEXT) -> Said:
        command = [*shlex.split(os.environ.get("QNAS_ADB", "adb")), "-s", self.serial, *words]
        try:
            return run(command, self._patience, longest)
        except FileNotFoundError as error:
            raise UsageError("adb is not installed: apt-get install adb, or name it in QNAS_ADB") from error
        except TimeoutError as error:
            raise ModelError(
                f"adb:{self.serial} did not answer within {self._patience:g} s: "
                "choose a smaller --shape or a longer --timeout"
            ) from error
        except OSError as error:
            raise UsageError(f"adb:{self.serial}: no process starts: {system_error(error)}") from error
        except TooMuch as error:
            raise ModelError(f"adb:{self.serial} answers without end: try again") from error


class AdbRunner:
    """A model and its program on a device (see `workers.runner.Runner`)."""

    def __init__(self, model: ModelFiles, device: DeviceName, options: LoadOptions) -> None:
        self._tool = TOOLS[model.path.suffix.lower()]
        if device.device.suffix != model.path.suffix.lower() or device.kind == "openvino":
            raise UsageError(
                f"{device} does not run {model.path}: adb has cpu and ort for .onnx, litert for .tflite"
            )
        binary = options.adb_binary
        if binary is None or not binary.is_file():
            raise UsageError(
                f"{device}: give the {self._tool.name} of the device's processor as --adb-binary PATH"
            )
        self.name = f"{model.path.name} on {device}"
        self._model, self._cpus = model, options.cpus
        self._adb = Adb(device.machine, options.patience)
        declared = file_kind(model.path).inputs(model.path)
        shapes = resolve_shapes(declared, [parse_shape(text) for text in options.shapes])
        self._call = Call(
            self._push_model(),
            device,
            options.threads,
            1,
            options.seed,
            declared,
            shapes,
            options.device_options,
        )
        digest = sha256_of(binary)
        program = shlex.quote(self._adb.keep(binary, digest, digest))
        self._program = (
            f"taskset {sum(1 << cpu for cpu in options.cpus):x} {program}" if options.cpus else program
        )
        self._per_inference = 0
        self.loaded = self._load(f"{self._tool.name} {digest[:12]}")

    def run(self, count: int) -> list[int]:
        """Nanoseconds of at least `count` inferences in a row: a burst fills `BURST`, as it costs a start."""
        if self._per_inference:
            count = max(count, min(math.ceil(BURST / self._per_inference), MOST_INFERENCES))
        times = self._once(replace(self._call, count=count)).times
        self._per_inference = round(sum(times) / len(times))
        return list(times)

    def executed(self, runs: int) -> tuple[tuple[ExecutedNode, ...], str]:
        """What ran where, and what the provider that was asked for is called there."""
        call = replace(self._call, count=runs, profile=True)
        with temporary_folder() as here:
            return self._tool.nodes(self._model.path, call, self._execute(call, here), here)

    def outputs(self) -> dict[str, NDArray[Any]]:
        """Raises UsageError: neither program writes them."""
        raise UsageError(f"{self.name}: what it computes cannot be had through adb: use ssh")

    def peak(self, threads: int) -> Peak:
        """Raises UsageError: nothing of qnas runs there."""
        raise UsageError(f"{self.name}: the peak of its processor is measured with ssh only")

    def state(self) -> State:
        """What the device tells of its own; processor time of others it does not."""
        said = dict(
            line.partition(" ")[::2] for line in self._adb.shell(f"({_STATE}) 2>/dev/null; true").splitlines()
        )
        numbers = {
            name: [int(each) for each in re.findall(r"\b\d{1,15}\b", text)] for name, text in said.items()
        }
        load = re.match(r"\d{1,6}\.\d+", said.get("load", ""))
        memory, thermal = numbers.get("memory"), numbers.get("thermal")
        return State(
            monotonic_ns=time.monotonic_ns(), own_ns=0, cpus=self.loaded.environment.cores,
            frequencies=numbers.get("cur", [])[:MOST],
            slowest=min(numbers.get("min", []), default=None),
            fastest=max(numbers.get("max", []), default=None),
            governor=printable(", ".join(said.get("governor", "").split()), LONGEST_FACT) or None,
            turbo=None, temperatures=(),
            throttle_events=None, cooling=thermal[-1] if thermal else None,
            busy_ticks=None, steal_ticks=None, all_ticks=None, ticks_per_second=100, waited_ns=None,
            quota_ns=None,
            load=float(load[0]) if load else None, memory_available=1024 * memory[0] if memory else None,
        )  # fmt: skip

    def close(self) -> None:
        """Nothing runs between bursts."""

    def _once(self, call: Call) -> Printed:
        with temporary_folder() as here:
            begun = time.perf_counter_ns()
            try:
                printed = self._tool.parse(self._execute(call, here), here, call.count)
            except ModelError as error:
                raise ModelError(f"{self.name}: {error}") from error
        check_times(printed.times, call.count, time.perf_counter_ns() - begun, self.name)
        return printed

    def _execute(self, call: Call, here: Path) -> str:
        """Run the program; the files that it writes come to `here`."""
        there = f"{FOLDER}/run-{uuid.uuid4().hex}"
        try:
            printed = self._adb.shell(
                f"mkdir -p {there} && cd {there} && {self._program} {shlex.join(self._tool.arguments(call))}"
            )
            for name in self._tool.writes if call.profile else self._tool.writes[:1]:
                if data := self._adb.read(f"{there}/{name}"):
                    (here / name.replace("*", "")).write_bytes(data)
        finally:
            with contextlib.suppress(ModelError, UsageError):
                self._adb.shell(f"rm -rf {there}")
        return printed

    def _push_model(self) -> str:
        digest = self._model.digest
        pairs = zip(self._model.files, self._model.sha256, strict=True)
        first, *_ = [self._adb.keep(file, sha256, digest) for file, sha256 in pairs]
        return first

    def _load(self, program: str) -> Loaded:
        printed = self._once(self._call)
        facts = [printable(line.strip(), LONGEST_FACT) for line in self._adb.shell(_FACTS).splitlines()[:5]]
        product, chip, android, machine, cores = (*facts, "", "", "", "", "")[:5]
        self._per_inference = printed.times[0]
        runtime = f"{program} ({self._tool.remark})" if self._tool.remark else program
        count = int(cores) if cores.isdecimal() and len(cores) < 5 else 1
        return Loaded(
            environment=Environment(
                cpu=f"{product} {chip}".strip() or "unknown", machine=machine or "unknown",
                system=f"Android {android}",
                cores=count, usable_cores=len(self._cpus) or count, governor=None, runtime=runtime, python="",
                numpy="", qnas=__version__,
            ),
            input_shapes=dict(self._call.shapes),
            input_types={each.name: each.dtype for each in self._call.declared},
            output_shapes={},
            load_ns=printed.load_ns,
            first_ns=printed.first_ns,
            peak_memory=printed.peak_memory,
        )  # fmt: skip


def _failure(status: str, printed: str) -> str:
    """What a program that ended with `status` said last; shells add 128 to the number of a signal."""
    said = [line.strip() for line in printed.splitlines() if line.strip()]
    words = f": {said[-1][:300]}" if said else ""
    number = int(status) - 128 if status.isdecimal() and len(status) < 4 else 0
    if number in set(signal.Signals):
        return f"the program was killed by {signal.Signals(number).name}{words}"
    return f"the program ended with status {status[:10]}{words}"


def _text(done: Said) -> str:
    return done.output.decode("utf-8", "replace")


def _last(done: Said) -> str:
    said = [line.strip() for line in f"{_text(done)}\n{done.errors}".splitlines() if line.strip()]
    return said[-1][:300] if said else ""
