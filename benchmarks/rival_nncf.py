"""NNCF's integer model of a float ONNX file; runs in an environment of its own, which has nncf and openvino.

python rival_nncf.py FLOAT.onnx PATCHES.npy TARGET.onnx

PATCHES: float32 [N, ...], each what the network reads. Ranges are the smallest and the largest value of all
patches, and biases are corrected layer by layer (not fast): what served super-resolution networks best.
"""

import sys

import nncf
import numpy as np
import onnx
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
from nncf.quantization.range_estimator import (
    AggregatorType,
    RangeEstimatorParameters,
    StatisticsCollectorParameters,
    StatisticsType,
)


def main(source: str, patches: str, target: str) -> None:
    """Quantize `source` by `patches`, and write `target`."""
    ranges = RangeEstimatorParameters(
        min=StatisticsCollectorParameters(
            statistics_type=StatisticsType.MIN, aggregator_type=AggregatorType.MIN
        ),
        max=StatisticsCollectorParameters(
            statistics_type=StatisticsType.MAX, aggregator_type=AggregatorType.MAX
        ),
    )
    model, images = onnx.load(source), np.load(patches)
    name = model.graph.input[0].name
    made = nncf.quantize(
        model,
        nncf.Dataset(list(images), lambda image: {name: image[None]}),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        fast_bias_correction=False,
        advanced_parameters=AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
    )
    onnx.save(made, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
