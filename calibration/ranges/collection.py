"""Runs the float network on images and shows its tensors to observers.

Each image runs by itself, on one thread of onnxruntime, and what portions of images gave is merged in the
order of the images: so neither the division into batches nor the number of threads can change a single bit.
Memory does not grow with the images: of large ones tiles run, of equal size, which cover them.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from qnas.calibration.prepare.float_model import FloatModel, Runner
from qnas.calibration.ranges.observers import Observer
from qnas.errors import ImageError, ModelError
from qnas.images.evaluation import Batch
from qnas.onnx.shapes import infer_shapes

HELD_BYTES = 256 << 20  # the tensors of one tile
SMALLEST_TILE = 128 * 128  # pixels that are never divided, whatever they hold
TILE_STEP = 16  # sides of tiles are multiples of it: networks that halve their images want that
PORTION = 1 << 17  # pixels that are observed before merging: merging costs as much as some 10 000 values

Seer = TypeVar("Seer", bound=Observer)
Seen = tuple[int, dict[str, Seer]]  # how many images, and what was seen of each tensor


def collect(
    network: FloatModel,
    batches: Iterable[Batch],
    names: Sequence[str],
    observer: Callable[[], Seer] | Mapping[str, Callable[[], Seer]],
    threads: int = 1,
    on_batch: Callable[[int], None] = lambda done: None,
    held_bytes: int = HELD_BYTES,
) -> dict[str, Seer]:
    """Observe the tensors `names` on all images of `batches`, grey levels [N, H, W, C] each.

    `observer` makes an observer, the same for all tensors or by name; returned is that of each name.
    `threads` images run at a time; `on_batch` is told how many are done, now and then. Held beside the
    runtime's own memory: `threads` times `held_bytes`, `threads + 2` times the observers' `state_bytes`, and
    the images that wait. A tile's edge is an edge of the image to the network, as that of a patch is.
    Raises ModelError, with the name of the tensor, when a value is not finite; ImageError without an image.
    """
    made = {name: observer[name] if isinstance(observer, Mapping) else observer for name in names}
    found = {name: make() for name, make in made.items()}
    runner = Runner(network, tuple(made))

    def observed(portion: list[Batch]) -> Seen[Seer]:
        seen = {name: make() for name, make in made.items()}
        for tile in (tile for image in portion for tile in tiles(image)):
            for name, values in runner.tensors(tile).items():
                _update(seen[name], values, name, network.name)
        return len(portion), seen

    tiles = partial(_tiles, most=_tile_pixels(network, tuple(made), held_bytes))
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        for images, seen in _in_order(pool, observed, _portions(batches), threads):
            for name, part in seen.items():
                found[name].merge(part)
            done += images
            on_batch(done)
    if not done:
        raise ImageError("no image to calibrate with: give a folder that holds some")
    return found


def _in_order(
    pool: ThreadPoolExecutor,
    observed: Callable[[list[Batch]], Seen[Seer]],
    portions: Iterable[list[Batch]],
    threads: int,
) -> Iterator[Seen[Seer]]:
    """What was observed of each portion, in their order; one more than `threads` of them wait at the most."""
    waiting: deque[Future[Seen[Seer]]] = deque()
    for portion in portions:
        waiting.append(pool.submit(observed, portion))
        if len(waiting) > threads:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _portions(batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    """The images one by one, [1, H, W, C], in lists of about PORTION pixels, however batches divide them."""
    portion: list[Batch] = []
    pixels = 0
    for batch in batches:
        for image in batch:
            portion.append(image[None])
            pixels += image.shape[0] * image.shape[1]
            if pixels >= PORTION:
                yield portion
                portion, pixels = [], 0
    if portion:
        yield portion


def _tile_pixels(network: FloatModel, names: tuple[str, ...], held_bytes: int) -> float:
    """The most pixels that run at once: infinite where the network takes one size."""
    if network.size is not None:
        return math.inf
    side = 4 * TILE_STEP
    shape = network.shape(side, side)
    shapes = infer_shapes(network.model, {network.input: shape})
    values = sum(math.prod(shapes.of(name) or shape) for name in names)
    return max(SMALLEST_TILE, held_bytes / (4 * values / side**2)) if values else math.inf


def _tiles(image: Batch, most: float) -> Iterator[Batch]:
    """Equal tiles of about `most` pixels or fewer that cover the image [1, H, W, C]; they may overlap."""
    sides = image.shape[1:3]
    if math.prod(sides) <= most:
        yield image
        return
    longest = max(TILE_STEP, math.isqrt(int(most)) // TILE_STEP * TILE_STEP)
    rows, columns = (_spans(side, longest) for side in sides)
    for row, column in product(rows, columns):
        yield np.ascontiguousarray(image[:, row, column])


def _spans(side: int, longest: int) -> list[slice]:
    count = -(-side // longest)
    size = min(side, -(-side // count // TILE_STEP) * TILE_STEP)
    return [slice(start, start + size) for start in (min(i * size, side - size) for i in range(count))]


def _update(observer: Observer, values: NDArray[np.float32], name: str, network: str) -> None:
    try:
        observer.update(values)
    except ModelError as error:
        raise ModelError(
            f"tensor {name!r} of {network}: {error}; check that the network's input range is the right one"
        ) from error
