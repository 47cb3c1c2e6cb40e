"""A compacted file is smaller, computes the same, and knows its layers by their names."""

import numpy as np
from onnx import helper

from qnas.onnx.compact import compacted
from qnas.onnx.session import open_session
from qnas.testing.text_models import INTEGER_CONV, text_model


def test_a_compacted_model_computes_the_same_in_fewer_bytes() -> None:
    """One of the names that it would give is that of the image."""
    model = text_model(INTEGER_CONV)
    model.graph.input[0].name = model.graph.node[0].input[0] = "0"
    for node in model.graph.node:
        node.name, node.doc_string = f"a/long/name/of/{node.output[0]}", "made by somebody"
    model.graph.value_info.append(helper.make_tensor_value_info("c", 1, ["n", 12, "h", "w"]))
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 9, 7), dtype=np.uint8)
    before = model.SerializeToString()
    (wanted,) = open_session(before, threads=1).run(None, {"0": image})
    small = compacted(model)
    (found,) = open_session(small.SerializeToString(), threads=1).run(None, {"0": image})
    np.testing.assert_array_equal(found, wanted)
    assert len(small.SerializeToString()) < len(before)
    assert not small.graph.value_info
    assert (small.graph.input[0].name, small.graph.output[0].name) == ("0", "upscaled")
    inner = {name for node in small.graph.node for name in (*node.input, *node.output)} - {"0", "upscaled"}
    assert all(name.isdecimal() for name in inner)
    assert len(inner) == 9  # four tensors between nodes, five constants


def test_layers_keep_their_names_and_conversions_need_none() -> None:
    model = text_model(INTEGER_CONV)
    for node in model.graph.node:
        node.name = f"/{node.op_type}"
        node.name += node.output[0] if node.op_type == "DequantizeLinear" else ""
    names = {node.op_type: node.name for node in compacted(model).graph.node}
    assert names["Conv"] == "/Conv"
    assert names["QuantizeLinear"] == "/QuantizeLinear"
    assert names["DequantizeLinear"].isdecimal()
