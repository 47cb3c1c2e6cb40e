"""Starts a candidate, wherever its device is."""

from qnas.runtime_bench.model_files import ModelFiles
from qnas.runtime_bench.workers.adb import AdbRunner
from qnas.runtime_bench.workers.process import LoadOptions, WorkerRunner
from qnas.runtime_bench.workers.runner import LoadedRunner
from qnas.runtimes.names import DeviceName


def start_runner(model: ModelFiles, device: DeviceName, options: LoadOptions) -> LoadedRunner:
    """A loaded model that ran once. Raises ModelError or UsageError, with the model's path in front."""
    if device.transport == "adb":
        return AdbRunner(model, device, options)
    return WorkerRunner(model, device, options)
