"""What exact sums cost in onnxruntime on this processor, and what its default computes without them.

python benchmarks/exact_sums.py [--rounds 20]

Each example's integer ONNX file runs in both modes of `session.x64quantprecision`, in turns, on one thread;
times are the processor's. On a processor with VNNI, or on ARM, both are the same.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import onnxruntime

import qnas
from qnas.onnx.session import EXACT_SUMS
from qnas.runtime_bench.environment import current_environment
from qnas.runtime_bench.stats import ratio_interval
from qnas.testing.random_networks import noise

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("espcn-w8", "espcn-w4", "basic-w48")
SIDE = 128


def session(data: bytes, exact: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry(EXACT_SUMS, exact)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@click.command()
@click.option("--rounds", default=20, show_default=True)
def main(rounds: int) -> None:
    click.echo(str(current_environment(f"onnxruntime {onnxruntime.__version__}").cpu))
    image = noise(SIDE, SIDE).transpose(2, 0, 1)[None]
    for name in NAMES:
        source = ROOT / "examples" / name / "found.pt"
        with TemporaryDirectory() as folder:
            written = qnas.export(source, Path(folder, "integer.onnx"), parity=False)
            data = written.files[0].read_bytes()
        sessions = [session(data, exact) for exact in ("1", "0")]
        feed = {sessions[0].get_inputs()[0].name: image}
        exact, default = (each.run(None, feed)[0].astype(int) for each in sessions)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for each, spent in zip(sessions, times, strict=True):
                start = time.process_time_ns()
                each.run(None, feed)
                spent.append(float(time.process_time_ns() - start))
        ratio = ratio_interval(times[0], times[1], 0)
        click.echo(
            f"{name}: {(exact != default).mean():.1%} of the values differ by default, by up to "
            f"{np.abs(exact - default).max()} levels; exact sums take {ratio.value:.2f} "
            f"({ratio.low:.2f} to {ratio.high:.2f}) times as long"
        )


if __name__ == "__main__":
    main()
