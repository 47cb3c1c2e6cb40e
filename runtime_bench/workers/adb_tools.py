"""The benchmark programs that run on Android devices: how they are called, and what they print.

`benchmark_model` of LiteRT (.tflite) prints the mean of its inferences, `onnxruntime_perf_test` (.onnx)
writes the time of each to a file. Their formats, old and new, are those of tensorflow/lite/tools/benchmark
and onnxruntime/test/perftest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qnas.cost.macs import Shape
from qnas.errors import ModelError, UsageError
from qnas.files import read_input
from qnas.runtimes.executed import ExecutedNode
from qnas.runtimes.inputs import Input
from qnas.runtimes.litert import BUILT_IN, EXTERNAL, file_nodes, provider_of
from qnas.runtimes.names import DeviceName
from qnas.runtimes.onnxruntime import SUFFIX, profiled_nodes
from qnas.tflite.reader import read_tflite

RESULT = "result.csv"
PROFILE = "profile"  # onnxruntime appends the date and .json
OPTIMIZED = "optimized.onnx"
GPU = "gpu"
_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
_LONGEST_NS = 10**15  # eleven days: more is nonsense


@dataclass(frozen=True)
class Call:
    """One run of a program: `count` inferences on `shapes` (input name -> dimensions).

    `model`: its path on the device. `profile`: the program is to tell what ran where.
    """

    model: str
    device: DeviceName
    threads: int
    count: int
    seed: int
    declared: tuple[Input, ...]
    shapes: Mapping[str, Shape]
    options: tuple[tuple[str, str], ...] = ()
    profile: bool = False


@dataclass(frozen=True)
class Printed:
    """What a run told. `times`: nanoseconds, one an inference; 0 stands for what it does not tell.

    `peak_memory`: bytes, of LiteRT only what it added to the program's own.
    """

    load_ns: int
    first_ns: int
    times: tuple[int, ...]
    peak_memory: int


@dataclass(frozen=True)
class Tool:
    """A program. `writes`: the files that it leaves behind, the first always and the others with a profile,
    which `parse` and `nodes` find in a folder here.

    `parse(printed, folder, count)`; `nodes(model, call, printed, folder)` are the nodes that ran, and what
    the provider that was asked for is called in them. Both raise ModelError alone, whatever was printed.
    """

    name: str
    remark: str  # on what its times are
    writes: tuple[str, ...]
    arguments: Callable[[Call], list[str]]
    parse: Callable[[str, Path, int], Printed]
    nodes: Callable[[Path, Call, str, Path], tuple[tuple[ExecutedNode, ...], str]]


def _litert_arguments(call: Call) -> list[str]:
    words = [
        f"--graph={call.model}", f"--num_threads={call.threads}", f"--num_runs={call.count}", "--min_secs=0",
        *_delegate(call.device.argument, call.options),
    ]  # fmt: skip
    free = [each for each in call.declared if not all(isinstance(dim, int) for dim in each.dims)]
    if free:  # then all must be named
        names = [each.name for each in call.declared]
        if any(set(name) & set(",:") for name in names):
            raise UsageError("benchmark_model cannot be told the sizes of inputs with , or : in their names")
        sizes = ":".join(",".join(map(str, call.shapes[name])) for name in names)
        words += [f"--input_layer={','.join(names)}", f"--input_layer_shape={sizes}"]
    return [*words, "--enable_op_profiling=true"] if call.profile else words


def _delegate(argument: str, options: Sequence[tuple[str, str]]) -> list[str]:
    if argument.startswith(EXTERNAL):
        words = ["--use_xnnpack=false", f"--external_delegate_path={argument.removeprefix(EXTERNAL)}"]
        given = ";".join(f"{key}:{value}" for key, value in options)
        return [*words, f"--external_delegate_options={given}"] if given else words
    if options:
        raise UsageError(
            "benchmark_model takes options for external delegates only: leave --device-option out"
        )
    match argument:
        case "":
            return ["--use_xnnpack=false"]
        case "xnnpack":
            return ["--use_xnnpack=true"]
        case "gpu":
            return ["--use_xnnpack=false", "--use_gpu=true"]
    raise UsageError(
        f"litert:{argument} is not there on adb: write litert, :xnnpack, :gpu or :external=LIBRARY"
    )


def _litert_parse(printed: str, folder: Path, count: int) -> Printed:
    """Every inference of a burst gets the burst's mean."""
    line = re.search(
        rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
        rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}",
        printed,
    )
    if line is None:
        raise ModelError("benchmark_model printed no 'Inference timings'")
    load, first, _, mean = (_nanoseconds(each, 1e3) for each in line.groups())
    memory = re.search(rf"emory footprint[^\n]{{0,100}}\(MB\): init=\S{{1,40}} overall={_NUMBER}", printed)
    return Printed(load, first, (_positive(mean),) * count, _size(memory[1], 2**20) if memory else 0)


def _litert_nodes(
    model: Path, call: Call, printed: str, folder: Path
) -> tuple[tuple[ExecutedNode, ...], str]:
    """Operators that the profile shows under their own index ran in built-in kernels, the others elsewhere.

    Nodes of a delegate have indices behind those of the file.
    """
    argument = call.device.argument
    provider = "GPU" if argument == GPU else provider_of(argument)
    operators = read_tflite(model).operators
    rows = list(_profile_rows(printed))
    if not rows:
        raise ModelError("benchmark_model printed no profile: take a newer one")
    own = {index for kind, index in rows if index < len(operators) and operators[index].name == kind}
    if not own and not any(index >= len(operators) or "elegate" in kind for kind, index in rows):
        raise ModelError("the profile of benchmark_model shows neither operators of the model nor a delegate")
    return file_nodes(model, own, provider if provider != BUILT_IN else "a delegate"), provider


def _profile_rows(printed: str) -> Iterator[tuple[str, int]]:
    """Node type and index, of the table of what ran in its order."""
    _, _, section = printed.partition("Operator-wise Profiling Info for Regular Benchmark Runs:")
    table, _, _ = section.partition("Top by Computation Time")
    for line in table.splitlines():
        if "Delegate/" in line:  # what a delegate did inside one node
            continue
        row, end, index = line.rstrip().rpartition("]:")  # node type ... [name of its output]:index
        words = row.split(maxsplit=1)
        if end and len(words) == 2 and "[" in words[1] and index.isdecimal() and len(index) < 10:
            yield words[0], int(index)


def _ort_arguments(call: Call) -> list[str]:
    words = [
        "-m", "times", "-r", str(call.count), "-e", _short(call.device), "-x", str(call.threads), "-y", "1",
        "-I", "-S", str(call.seed),
    ]  # fmt: skip
    for each in call.declared:
        for dim, size in zip(each.dims, call.shapes[each.name], strict=True):
            if isinstance(dim, str):
                words += ["-f", f"{dim}:{size}"]
            elif dim is None and size != 1:
                raise UsageError(
                    f"onnxruntime_perf_test cannot set a size of input {each.name!r} that has no name: "
                    "fix it in the model"
                )
    if call.options:
        words += ["-i", " ".join(f"{key}|{value}" for key, value in call.options)]
    if call.profile:
        words += ["-p", PROFILE]
        if _short(call.device) == "cpu":  # what others compile cannot be written
            words += ["-u", OPTIMIZED]
    return [*words, call.model, RESULT]


def _short(device: DeviceName) -> str:
    """The provider as the program calls it."""
    if device.kind == "cpu":
        return "cpu"
    name = device.argument.removesuffix(SUFFIX).lower()
    if not re.fullmatch("[a-z0-9]+", name):
        raise UsageError(f"{device}: name an execution provider, such as nnapi, xnnpack or qnn")
    return name


def _ort_parse(printed: str, folder: Path, count: int) -> Printed:
    load = re.search(rf"Session creation time cost: ?{_NUMBER} s", printed)
    first = re.search(rf"First inference time cost: ?{_NUMBER} ms", printed)
    peak = re.search(r"Peak working set size: ?([0-9]+)", printed)
    return Printed(
        load_ns=_nanoseconds(load[1], 1e9) if load else 0,
        first_ns=_nanoseconds(first[1], 1e6) if first else 0,
        times=_rows(_text(folder / RESULT), count),
        peak_memory=_size(peak[1], 1) if peak else 0,
    )


def _rows(text: str, count: int) -> tuple[int, ...]:
    """Read `name,seconds,[seconds in all,]memory,processor use,run`; older programs tell one time."""
    rows = [line.rsplit(",", 4) for line in text.splitlines() if line.count(",") >= 4]
    times = tuple(_positive(_nanoseconds(row[1].strip(), 1e9)) for row in rows)
    if len(times) != count:
        raise ModelError(f"onnxruntime_perf_test wrote the times of {len(times)} inferences, not {count}")
    return times


def _ort_nodes(model: Path, call: Call, printed: str, folder: Path) -> tuple[tuple[ExecutedNode, ...], str]:
    import onnxruntime

    name = _short(call.device)
    profile = next(folder.glob(f"{PROFILE}*.json"), None)
    if profile is None:
        raise ModelError("onnxruntime_perf_test wrote no profile")
    optimized = folder / OPTIMIZED
    known = {each.lower(): each for each in onnxruntime.get_all_providers()}
    provider = known.get(f"{name}{SUFFIX}".lower(), f"{name}{SUFFIX}")
    return profiled_nodes(_text(profile), optimized if optimized.is_file() else model, call.count), provider


def _text(path: Path) -> str:
    try:
        return read_input(path).decode("utf-8", "replace")
    except OSError as error:
        raise ModelError(f"the program wrote no {path.name}: take a newer one") from error


def _nanoseconds(text: str, unit: float) -> int:
    try:
        value = float(text) * unit
    except ValueError:
        value = math.nan
    if not 0 <= value <= _LONGEST_NS:
        raise ModelError(f"{text[:40]!r} is no time that an inference takes")
    return round(value)


def _size(text: str, unit: int) -> int:
    try:
        value = float(text) * unit
    except ValueError:
        return 0
    return round(value) if value < 2**63 else 0


def _positive(nanoseconds: int) -> int:
    if nanoseconds == 0:
        raise ModelError("an inference took no time: give a model that computes more")
    return nanoseconds


TOOLS: dict[str, Tool] = {
    ".tflite": Tool(
        "benchmark_model", "means of bursts", (), _litert_arguments, _litert_parse, _litert_nodes
    ),
    ".onnx": Tool(
        "onnxruntime_perf_test",
        "",
        (RESULT, f"{PROFILE}*.json", OPTIMIZED),
        _ort_arguments,
        _ort_parse,
        _ort_nodes,
    ),
}
