"""Whether ARM computes what x86 computes; writes docs/arm64.md.

    scripts/arm64 build && scripts/arm64 start
    python benchmarks/arm64_outputs.py

Every model runs here and on both emulated processors, on the same random image.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import onnx
from numpy.typing import NDArray

from qnas.runtime_bench.model_files import model_files
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.runtime_bench.workers.start import start_runner
from qnas.runtimes.names import parse_device

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ("espcn-w8", "espcn-w4", "basic-w48")
MACHINES = {"Neoverse-N1": "ssh:qnas-arm64/", "Cortex-A72": "ssh:qnas-arm64-a72/"}
DEVICES = {".onnx": "cpu", ".tflite": "litert:xnnpack"}
RUNS = 5
Outputs = dict[str, NDArray[Any]]

HEAD = """# 64-bit ARM

Whether a model computes the same on ARM is a question about kernels, not about speed: an emulated processor
answers it. qemu runs the real aarch64 wheels of onnxruntime and LiteRT, which choose their real kernels.

    scripts/arm64 build     # Debian for arm64, wheels, this checkout: some 5 minutes, 550 MB; as root
    scripts/arm64 start     # an sshd for each processor; prints what follows
    export QNAS_SSH="ssh -F ~/.cache/qnas/arm64-root/ssh_config"
    qnas-bench model.onnx --device ssh:qnas-arm64/cpu
    qnas-bench model.tflite --device ssh:qnas-arm64-a72/litert:xnnpack

`qnas-arm64` is a Neoverse-N1 (dot products: servers, phones since 2018), `qnas-arm64-a72` a Cortex-A72 (none:
Raspberry Pi 4). After a change of the code, `scripts/arm64 build` again. `scripts/arm64 stop` ends it.
With `QNAS_ARM64_SSH_CONFIG` set to that ssh_config, `tests/runtime_bench/test_arm64.py` runs too. A real ARM
machine needs none of this: `pip install "qnas[tflite]"` there, and `--device ssh:HOST/cpu`.

## What it takes

- binfmt_misc with flag F (qemu-user-static registers it so): the kernel starts qemu inside the chroot too.
- /proc and /sys in the chroot, and a /proc/cpuinfo of ARM. With that of x86 importing onnxruntime crashes;
  without /proc LiteRT leaves XNNPACK out. Ours says "(emulated)" in its model name, and so does every report.
- `QEMU_CPU` in each session, by sshd's SetEnv: sshd clears the environment. Not `max`: qemu 7.2 computes
  garbage in XNNPACK's SME kernels (`max,sme=off` is right).
- A user whose password is `*`, not the `!` of useradd: without PAM sshd takes that for a locked account.
- sshd in namespaces of its own for mounts and processes: killing its first process leaves nothing behind.

## Results

Made by `python benchmarks/arm64_outputs.py` with onnxruntime {onnxruntime}, LiteRT {litert}. How many values
differ from those of x86-64, and by how many steps at most, on a random image of {size}x{size}: noise is the
worst case. In brackets milliseconds of an inference **under emulation**: they say nothing about ARM.

| model | device | values | {machines} |
|---|---|---|{rules}
"""
FINDINGS = """
What the last four rows show, each a network of one operation:

- **onnxruntime's QLinearAdd rounds ties up on ARM**, and to even elsewhere: its NEON kernel works in fixed
  point and shifts with rounding. On one scale there is nothing to round. Where a requantization is written as
  an addition of zero, from one power of two to another, many values are ties.
- **A weight of -128 overflows on ARM without dot products**: kernels of onnxruntime and XNNPACK add two
  products in 16 bits, and twice (-128)(-128) is 32768; -128 is also what they make of a zero of uint8. With
  weights of -127 to 127, as TFLite's specification of int8 demands, nothing differs.
"""


@dataclass(frozen=True)
class Case:
    """A model and the shape of its image."""

    label: str
    path: Path
    shape: str


def examples(folder: Path, size: int) -> list[Case]:
    """The networks of examples/ in both formats."""
    cases = []
    for name in EXAMPLES:
        shutil.copy(ROOT / "examples" / name / "found.pt", folder / f"{name}.pt")
        words = ["--format", "onnx-qdq", "--format", "tflite", "--size", f"{size}x{size}", "--no-parity"]
        command = [Path(sys.executable).with_name("qnas-export"), folder / f"{name}.pt", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        cases += [Case(name, folder / f"{name}{suffix}", f"{size}x{size}") for suffix in DEVICES]
    return cases


def operations(folder: Path) -> list[Case]:
    """Networks of one operation, of which every value can be told by hand."""
    addition = """<ir_version: 10, opset_import: ["" : 21]>
        add (uint8[1, 1, 64, 64] x) => (uint8[1, 1, 64, 64] y)
        <float in = {0.015625}, float out = {%s}, uint8 middle = {128}, uint8 zero = {%d}>
        { a = DequantizeLinear(x, in, middle)  b = DequantizeLinear(middle, in, middle)
          sum = Add(a, b)  y = QuantizeLinear(sum, out, zero) }"""
    convolution = """<ir_version: 10, opset_import: ["" : 21]>
        conv (uint8[1, 16, 64, 64] x) => (uint8[1, 16, 64, 64] y)
        <float in = {0.125}, float by = {0.0078125}, uint8 middle = {128}, uint8 zero = {0},
         int8[16, 16, 1, 1] q = {%s}>
        { a = DequantizeLinear(x, in, middle)  r = QuantizeLinear(a, in, zero)
          b = DequantizeLinear(r, in, zero)    w = DequantizeLinear(q, by)
          c = Conv(b, w)                       y = QuantizeLinear(c, in, zero) }"""
    texts = {
        "addition of zero, to a scale 4 times as wide": addition % ("0.0625", 0),
        "addition of zero on one scale": addition % ("0.015625", 128),
    }
    for least in (-128, -127):
        weights = np.diag([127] * 16)
        weights[:, [7, 15]] = least  # kernels add the products of channels 8 apart
        texts[f"convolution with weights of {least}"] = convolution % ", ".join(map(str, weights.ravel()))
    cases = []
    for number, (label, text) in enumerate(texts.items()):
        path = folder / f"operation{number}.onnx"
        onnx.save(onnx.parser.parse_model(text), path)
        cases.append(Case(label, path, "64x64"))
    return cases


def outputs(case: Case, machine: str) -> tuple[Outputs, float, str]:
    """What the device writes, its median milliseconds, and its runtime."""
    device = parse_device(machine + DEVICES[case.path.suffix])
    runner = start_runner(model_files(case.path), device, LoadOptions(shapes=(case.shape,)))
    try:
        milliseconds = median(runner.run(RUNS)) / 1e6
        return runner.outputs(), milliseconds, runner.loaded.environment.runtime
    finally:
        runner.close()


def steps(one: Outputs, other: Outputs) -> NDArray[np.int64]:
    """How far every value of every output is off."""
    parts = [np.abs(one[name].astype(np.int64) - other[name].astype(np.int64)).ravel() for name in one]
    return np.concatenate(parts)


@click.command()
@click.option("--size", default=48, show_default=True, help="Height and width of the image.")
def main(size: int) -> None:
    config = os.environ.get("QNAS_ARM64_SSH_CONFIG", str(Path.home() / ".cache/qnas/arm64-root/ssh_config"))
    os.environ["QNAS_SSH"] = f"ssh -F {config}"
    lines, runtimes = [], {}
    with tempfile.TemporaryDirectory() as name:
        for case in [*examples(Path(name), size), *operations(Path(name))]:
            expected, _, runtime = outputs(case, "")
            runtimes[case.path.suffix] = runtime.split()[-1]
            cells = []
            for machine in MACHINES.values():
                found, milliseconds, _ = outputs(case, machine)
                off = steps(expected, found)
                differing = f"{np.count_nonzero(off):,}, {off.max()}" if off.any() else "0"
                cells.append(f"{differing} ({milliseconds:.0f})")
            device = DEVICES[case.path.suffix]
            lines.append(f"| {case.label} | {device} | {off.size:,} | {' | '.join(cells)} |")
            click.echo(lines[-1])
    head = HEAD.format(
        onnxruntime=runtimes[".onnx"], litert=runtimes[".tflite"], size=size,
        machines=" | ".join(MACHINES), rules="---|" * len(MACHINES),
    )  # fmt: skip
    (ROOT / "docs" / "arm64.md").write_text(head + "\n".join(lines) + "\n" + FINDINGS)


if __name__ == "__main__":
    main()
