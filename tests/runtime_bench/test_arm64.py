"""What ARM computes, on the emulated machine of scripts/arm64 (docs/arm64.md), or else skipped."""

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.runtime_bench.environment import Environment
from qnas.runtime_bench.model_files import model_files
from qnas.runtime_bench.profile.delegation import delegation
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.runtime_bench.workers.start import start_runner
from qnas.runtimes.names import parse_device
from qnas.testing.small_networks import tied_network

CONFIG = os.environ.get("QNAS_ARM64_SSH_CONFIG", "")
MACHINES = {"qnas-arm64": "ARM Neoverse-N1", "qnas-arm64-a72": "ARM Cortex-A72"}

pytestmark = pytest.mark.skipif(
    not CONFIG or shutil.which("ssh") is None,
    reason="no ARM machine: scripts/arm64 build, scripts/arm64 start, set QNAS_ARM64_SSH_CONFIG",
)


@pytest.fixture(autouse=True)
def _reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QNAS_SSH", f"ssh -F {CONFIG}")


def run(model: Path, device: str) -> tuple[dict[str, np.ndarray], float, Environment]:
    """The outputs, the share of the MACs that ran where they should, and where that was."""
    runner = start_runner(model_files(model), parse_device(device), LoadOptions(shapes=("24x20",)))
    try:
        return runner.outputs(), delegation(*runner.executed(1), 0).mac_share, runner.loaded.environment
    finally:
        runner.close()


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("suffix", "device"), [(".onnx", "cpu"), (".tflite", "litert:xnnpack")])
def test_arm_computes_the_integers_where_ties_are_many(
    tmp_path: Path, machine: str, suffix: str, device: str
) -> None:
    model, network = tmp_path / f"model{suffix}", tied_network()
    if suffix == ".onnx":
        onnx.save(write_onnx(fitted(network, TARGETS["onnxruntime"]), TARGETS["onnxruntime"]), model)
    else:
        model.write_bytes(write_tflite(fitted(network, TARGETS["litert"]), 24, 20).data)
    here, _, _ = run(model, device)
    there, share, environment = run(model, f"ssh:{machine}/{device}")
    assert (environment.machine, environment.cpu) == ("aarch64", f"{MACHINES[machine]} (emulated)")
    assert share == 1
    assert here.keys() == there.keys()
    for name, expected in here.items():
        assert len(np.unique(expected)) > 50  # a flat image would hide every difference
        np.testing.assert_array_equal(there[name], expected)
