"""Starts a candidate, wherever its device is."""

from qnas.errors import UsageError
from qnas.runtime_bench.devices.names import DeviceName
from qnas.runtime_bench.model_files import ModelFiles
from qnas.runtime_bench.workers.process import LoadOptions, WorkerRunner


def start_runner(model: ModelFiles, device: DeviceName, options: LoadOptions) -> WorkerRunner:
    """A loaded model that ran once. Raises ModelError or UsageError, with the model's path in front."""
    if device.transport == "adb":
        raise UsageError("adb is not there yet")
    return WorkerRunner(model, device, options)
