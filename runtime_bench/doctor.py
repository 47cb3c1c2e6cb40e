"""What of qnas works on this machine, and what to install for the rest."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from qnas import __version__
from qnas.runtimes.names import listing

# Package -> the extra that brings it, and what it is for.
PACKAGES = {
    "torch": ("export", "search, train, import; export and inspect of a found.pt"),
    "onnxsim": ("export", "simpler ONNX files"),
    "matplotlib": ("search", "pictures of searches"),
    "scikit-image": ("search", "the sample photographs"),
    "tensorboardX": ("search", "logs for TensorBoard"),
    "ai-edge-litert": ("tflite", "TFLite: written, checked, measured"),
    "openvino": ("openvino", "OpenVINO: checked, measured"),
}
PROGRAMS = {
    "ssh": "models on other machines",
    "adb": "models on phones: Android's platform tools",
    "valgrind": "instructions in a gate where times are noise",
    "node": "the device web: Node 18 or newer, and npm install -g onnxruntime-web",
    "ffmpeg": "videos in qnas-upscale",
}
# Command -> the packages that it cannot do without.
NEEDS = {
    "search": ("torch",), "train": ("torch",), "import": ("torch",), "calibrate": (), "export": (),
    "inspect": (), "bench": (), "evaluate": (), "upscale": (),
}  # fmt: skip

BUILT_IN = ("ort:", "litert:external")

Rows = list[tuple[str, str]]


def findings() -> Mapping[str, Rows]:
    """Title -> (name, what was found) of this machine, packages, programs, commands and devices."""
    cores = f"{os.cpu_count()} processors"
    return {
        f"qnas {__version__}": [
            ("machine", f"{platform.machine()}, {platform.system()}, {cores}"),
            ("Python", platform.python_version()),
            *((name, version(name)) for name in ("onnx", "onnxruntime", "numpy")),
        ],
        "Packages": [(name, _package(name)) for name in PACKAGES],
        "Programs": [
            (name, shutil.which(name) or f"missing; for {purpose}") for name, purpose in PROGRAMS.items()
        ],
        "Commands": [(f"qnas {name}", _command(packages)) for name, packages in NEEDS.items()],
        "Devices": [
            (name, reason or "works")
            for name, reason in listing()
            if not reason or not name.startswith(BUILT_IN)  # which no installation adds to a build
        ],
    }


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        extra, purpose = PACKAGES[name]
        return f"missing; for {purpose}: pip install 'qnas[{extra}]'"


def _command(packages: tuple[str, ...]) -> str:
    missing = [name for name in packages if find_spec(name) is None]
    return f"needs {', '.join(missing)}: pip install 'qnas[all]'" if missing else "works"
