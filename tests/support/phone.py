"""Stand-ins for a phone: an adb whose device is a folder here, and benchmark programs that run models here.

`adb` copies and executes for true. The programs take the options, print the lines and write the files of the
real ones (their sources, and output recorded from them), with times and profile of the runtime here.
"""

import os
import stat
import sys
from pathlib import Path

import pytest

ADB = """#!/bin/sh
# adb -s SERIAL get-state | shell COMMAND | push FROM TO | exec-out COMMAND, in the folder $PHONE
[ "$2" = phone1 ] || { echo "error: device '$2' not found" >&2; exit 1; }
there() { printf %s "$1" | sed "s#/data/local/tmp#$PHONE#g"; }
case $3 in
get-state) echo device ;;
shell) sh -c "$(there "$4")" ;;
push) cp "$4" "$(there "$5")" && echo "$4: 1 file pushed" ;;
exec-out) sh -c "$(there "$4")" ;;
esac
"""

PERF_TEST = """#!{python}
import argparse, glob, os, time
import numpy, onnxruntime
parser = argparse.ArgumentParser()
for flag in "mrexySpuif":
    parser.add_argument("-" + flag, action="append")
parser.add_argument("-I", action="store_true")
parser.add_argument("model")
parser.add_argument("result")
given = parser.parse_args()
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
options.intra_op_num_threads = int(given.x[0])
if given.p:
    options.enable_profiling, options.profile_file_prefix = True, given.p[0]
if given.u:
    options.optimized_model_filepath = given.u[0]
start = time.perf_counter()
session = onnxruntime.InferenceSession(given.model, options, providers=["CPUExecutionProvider"])
print(f"Setting intra_op_num_threads to {given.x[0]}")
print(f"Session creation time cost: {time.perf_counter() - start:.6g} s")
sizes = dict(each.split(":") for each in given.f or ())
feed = {}
for each in session.get_inputs():
    shape = [int(sizes.get(dim, 1)) if isinstance(dim, str) else dim for dim in each.shape]
    kind = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}[each.type]
    feed[each.name] = numpy.zeros(shape, kind)
start = time.perf_counter()
session.run(None, feed)
print(f"First inference time cost: {int(1e3 * (time.perf_counter() - start))} ms")
times = []
for _ in range(int(given.r[0])):
    start = time.perf_counter()
    session.run(None, feed)
    times.append(time.perf_counter() - start)
with open(given.result, "a") as file:
    for run, each in enumerate(times):
        file.write(f"model,{each / 2:.6g},{each:.6g},91336704,62,{run}\\n")
print(f"Average inference time cost total: {1e3 * sum(times) / len(times):f} ms")
print("Peak working set size: 91336704 bytes")
"""

BENCHMARK_MODEL = """#!{python}
import sys, time
import numpy
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from qnas.tflite.session import delegated_operators, operators
def row(kind, name):
    print(f"\\t{kind:>24}\\t    0.199\\t    0.203\\t  1.328%\\t  1.328%\\t     0.000\\t        1\\t{name}")
given = dict(word[2:].split("=", 1) for word in sys.argv[1:])
kind = OpResolverType.BUILTIN
if given["use_xnnpack"] == "false":
    kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
start = time.perf_counter()
threads = int(given["num_threads"])
runtime = Interpreter(given["graph"], num_threads=threads, experimental_op_resolver_type=kind)
names = given["input_layer"].split(",") if "input_layer" in given else []
for detail, shape in zip(runtime.get_input_details(), given.get("input_layer_shape", "").split(":")):
    if names:
        runtime.resize_tensor_input(detail["index"], [int(size) for size in shape.split(",")])
runtime.allocate_tensors()
init = round(1e6 * (time.perf_counter() - start))
times = []
for _ in range(1 + int(given["num_runs"])):
    start = time.perf_counter()
    runtime.invoke()
    times.append(round(1e6 * (time.perf_counter() - start)) or 1)
mean = sum(times[1:]) / len(times[1:])
print("INFO: STARTING!")
print(f"INFO: count=1 curr={times[0]}")
print(f"INFO: Inference timings in us: Init: {init}, First inference: {times[0]}, "
      f"Warmup (avg): {times[0]}, Inference (avg): {mean:.6g}")
print("INFO: Memory footprint delta from the start of the tool (MB): init=8.97656 overall=18.7227")
if given.get("enable_op_profiling") == "true":
    print("INFO: Operator-wise Profiling Info for Regular Benchmark Runs:")
    print("============================== Run Order ==============================")
    print("\\t[node type]\\t[first]\\t[avg ms]\\t[%]\\t[cdf%]\\t[mem KB]\\t[times called]\\t[Name]")
    taken = delegated_operators(runtime)
    for each in operators(runtime):
        if each["index"] not in taken:
            row(each["op_name"], f"[a, b;c]:{each['index']}")
    for number in range(bool(taken)):
        row("TfLiteXNNPackDelegate", f"[upscaled]:{len(operators(runtime)) + number}")
        row("Convolution (NHWC, QC8) IGEMM", "Delegate/Convolution (NHWC, QC8) IGEMM:0")
    print("============================== Top by Computation Time ==============================")
"""


def connect(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A phone1 whose /data/local/tmp is the folder returned."""
    (folder / "phone").mkdir()
    monkeypatch.setenv("QNAS_ADB", str(program(folder / "adb", ADB)))
    monkeypatch.setenv("PHONE", str(folder / "phone"))
    return folder / "phone"


def program(path: Path, text: str) -> Path:
    """Write an executable file; {python} in `text` is this interpreter."""
    path.write_text(text.replace("{python}", sys.executable))
    os.chmod(path, path.stat().st_mode | stat.S_IXUSR)
    return path
