"""Whether the predicted loss of a mix of 4 and 8 bits ranks mixes as they are measured.

    python benchmarks/bits_ranking.py NETWORK.onnx IMAGES --calibration C.json

draws random mixes, predicts each by the errors of its layers one by one, as `qnas-search bits` does, and
measures it on the patches held out. Prints Kendall's tau, and how far the predictions are off.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from qnas.calibration.calibrate import Settings
from qnas.calibration.mixed_bits import mixer_of, weighed
from qnas.calibration.progress import Display
from qnas.cost.allocation import Task
from qnas.images.quality import psnr_of
from qnas.runtime_bench.latency_model.rank import kendall


def main() -> None:
    """Print the figures of one network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--inputs", action="store_true", help="layers may read 4 bits too")
    parser.add_argument("--mixes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    task = Task((given.images,), (), (), threads=1)
    mixer = mixer_of(given.model, task, given.calibration, Settings(), given.inputs, Display())
    started = time.monotonic()
    choices = weighed(mixer, "bitops", (32, 32), Display())
    seconds = time.monotonic() - started
    rng = np.random.default_rng(given.seed)
    predicted, measured = [], []
    for _ in range(given.mixes):
        bits = {layer.name: str(rng.choice(list(layer.costs))) for layer in choices.layers}
        added = sum(layer.errors[bits[layer.name]] for layer in choices.layers)
        predicted.append(choices.error + added)
        measured.append(mixer.judge.error(mixer.model(bits)))
    off = [abs(psnr_of(a) - psnr_of(b)) for a, b in zip(predicted, measured, strict=True)]
    print(
        f"{given.model.name}: {len(choices.layers)} layers, measured in {seconds:.0f} s; "
        f"tau {kendall(predicted, measured):.3f}, "
        f"predictions off by {np.mean(off):.2f} dB on average, {max(off):.2f} at most"
    )


if __name__ == "__main__":
    main()
