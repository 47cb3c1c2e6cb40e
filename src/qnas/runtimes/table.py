"""Every runtime: adding one is adding its file and a line here."""

from qnas.runtimes.litert import LITERT
from qnas.runtimes.onnxruntime import ONNXRUNTIME
from qnas.runtimes.openvino import OPENVINO
from qnas.runtimes.reference import REFERENCE
from qnas.runtimes.runtime import Check, Device
from qnas.runtimes.web import WEB

RUNTIMES = (ONNXRUNTIME, REFERENCE, OPENVINO, WEB, LITERT)  # in the order of reports

DEVICES: dict[str, Device] = {kind: each for runtime in RUNTIMES for kind, each in runtime.devices.items()}
CHECKS: dict[str, Check] = {name: each for runtime in RUNTIMES for name, each in runtime.checks.items()}
DEFAULTS: dict[str, str] = {  # suffix of a file -> the device that runs it unless one is named
    next(iter(runtime.devices.values())).suffix: runtime.default for runtime in RUNTIMES if runtime.default
}


def checks_of(suffix: str) -> dict[str, Check]:
    """Return the checks of files that end in `suffix`, by id."""
    return {name: check for name, check in CHECKS.items() if check.suffix == suffix}
