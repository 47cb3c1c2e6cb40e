"""Small valid float networks, as others export them, and models whose weights lie in other files."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from onnx import ModelProto, TensorProto

from qnas.testing import sr_modules
from qnas.testing.seed_files import Seeds, models

SECRET = b"above the model " * 4096  # what lies where no model may reach
WEIGHTS = bytes(range(256)) * 64  # files beside the model and below it


@cache
def float_models() -> Seeds:
    networks: dict[str, Callable[[], sr_modules.Network]] = {
        "espcn": lambda: sr_modules.espcn(True, 8, 2),
        "xlsr": lambda: sr_modules.xlsr_like(True, 8, 1, 2),
        "grey levels": lambda: sr_modules.in_grey_levels(sr_modules.abpn_like(False, 4, 3, 2)),
        "every": lambda: sr_modules.every_operation(True, 4),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        made = {name: sr_modules.export(make(), path).read_bytes() for name, make in networks.items()}
        fixed = sr_modules.export(networks["espcn"](), path, opset=13, size=(24, 20)).read_bytes()
    return {**made, "one size": fixed}


@cache
def external_models() -> Seeds:
    """The integer weights of one model in a file beside it, those of another below."""
    return {
        "beside": _with_weights_in("weights.bin", "rfdn-onnxruntime"),
        "below": _with_weights_in("below/weights.bin", "basic-portable-int4"),
    }


def _with_weights_in(location: str, name: str) -> bytes:
    """The weights are others then: a part of WEIGHTS."""
    model = ModelProto.FromString(models()[name])
    for tensor in model.graph.initializer:
        if (
            tensor.data_type in (TensorProto.INT8, TensorProto.INT4)
            and tensor.raw_data
            and len(tensor.dims) == 4
        ):
            entries = {"location": location, "offset": "0", "length": str(len(tensor.raw_data))}
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=value)
    return model.SerializeToString()
