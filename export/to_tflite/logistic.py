"""What LiteRT does with an operator that only LiteRT defines."""

import numpy as np
from numpy.typing import NDArray

from qnas.export.to_tflite.file import Grid, TfliteFile
from qnas.tflite.session import LiteRtSession


def logistic_table(scale: np.float32, zero_point: int) -> NDArray[np.uint8]:
    """uint8 [256]: the runtime's sigmoid of int8 values -128 .. 127 on that grid, in steps of 1/256."""
    file, shape = TfliteFile(), (1, 16, 16, 1)
    x = file.tensor("x", shape, grid=Grid(np.asarray(scale), zero_point))
    y = file.tensor("y", shape, grid=Grid(np.asarray(2.0**-8, np.float32), -128))
    file.operator("LOGISTIC", [x], y)
    session = LiteRtSession(file.pack("sigmoid", x, y, {}))
    return session.run(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)).reshape(-1)
