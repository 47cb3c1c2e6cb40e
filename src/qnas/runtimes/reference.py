"""ONNX's own reference evaluator: node by node, in numpy."""

import warnings
from collections.abc import Sequence
from typing import Any

import onnx

from qnas.runtimes.inputs import Feed
from qnas.runtimes.onnx_runner import Session, onnx_runner
from qnas.runtimes.runtime import Check, Runner, Runtime


def _checked(data: bytes) -> Runner:
    from onnx.reference import ReferenceEvaluator

    def session(model: bytes) -> Session:
        evaluator = ReferenceEvaluator(onnx.load_model_from_string(model))

        def run(feed: Feed) -> Sequence[Any]:
            with warnings.catch_warnings():  # its max-pool pads uint8 with NaN, by zero pixels
                warnings.simplefilter("ignore", RuntimeWarning)
                return list(evaluator.run(None, feed))

        return run

    return onnx_runner(data, session, slow=True)


REFERENCE = Runtime(
    checks={"reference": Check("ONNX reference evaluator", ".onnx", "onnx", _checked)}, devices={}
)
