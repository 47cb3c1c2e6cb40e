"""How near an integer model comes to the float one: PSNR on patches that no range was made of."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from qnas.calibration.patches.patches import Patches
from qnas.calibration.patches.representative import RepresentativeSet
from qnas.calibration.prepare.float_model import FloatModel, Runner
from qnas.calibration.progress import Wrap
from qnas.calibration.ptq.integer_model import IntegerRunner
from qnas.images.evaluation import Batch
from qnas.images.quality import psnr_of

DIGITS = 4  # of a PSNR in dB
MOST_PATCHES = 256  # more of them move no score by what matters


class OneByOne:
    """A network that sees one image at a time, on one thread each, `threads` of them at once.

    What it computes of an image depends neither on `threads` nor on the images beside it.
    """

    def __init__(self, run: Callable[[Batch], Batch], threads: int) -> None:
        self._run, self._threads = run, threads

    def __call__(self, pixels: Batch) -> Batch:
        """Grey levels [N, H, W, C] -> grey levels [N, scale H, scale W, C]."""
        images = [pixels[i : i + 1] for i in range(len(pixels))]
        if self._threads == 1 or len(images) == 1:
            return np.concatenate([self._run(image) for image in images])
        with ThreadPoolExecutor(self._threads) as pool:
            return np.concatenate(list(pool.map(self._run, images)))


class Judge:
    """Compares integer models with the float `network` on the first `MOST_PATCHES` patches of `images`."""

    def __init__(self, network: FloatModel, images: RepresentativeSet, threads: int = 1) -> None:
        self.network, self._threads = network, threads
        self.images = replace(images, crops=images.crops[:MOST_PATCHES])
        self._patches = Patches.of(self.images)
        self._wanted: list[NDArray[np.uint8]] | None = None

    def psnr(self, model: ModelProto, passing: Wrap = iter) -> float:
        """PSNR in dB, peak 255, over all values of all patches, both rounded and clipped to uint8.

        `passing` hands the batches on, for a progress display. Infinite when nothing differs.
        """
        return round(psnr_of(self.error(model, passing)), DIGITS)

    def error(self, model: ModelProto, passing: Wrap = iter) -> float:
        """The mean squared difference that `psnr` is of, in squared grey levels."""
        if self._wanted is None:
            runner = OneByOne(Runner(self.network), self._threads)
            self._wanted = [as_bytes(runner(batch)) for batch in self._patches.batches()]
        runner = OneByOne(IntegerRunner(self.network, model), self._threads)
        squares = values = 0
        for batch, wanted in zip(passing(self._patches.batches()), self._wanted, strict=True):
            difference = as_bytes(runner(batch)).astype(np.int32) - wanted
            squares += int(np.square(difference).sum(dtype=np.int64))
            values += wanted.size
        return squares / values


def as_bytes(pixels: Batch) -> NDArray[np.uint8]:
    """Grey levels as an image file has them: rounded half to even, clipped to 0..255."""
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
