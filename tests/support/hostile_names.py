"""ONNX models with names that would colour, retitle, reverse or mark up whatever shows them raw."""

from onnx import ModelProto

HOSTILE = "\x1b]0;owned\x07\x1b[31m[red]\u202eevil\u200b\x9b:smile:|<b>\n"


def hostile(model: ModelProto) -> ModelProto:
    """`model` with every name in it followed by `HOSTILE`."""
    graph = model.graph
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type} {index}{HOSTILE}"
        node.input[:] = [name and name + HOSTILE for name in node.input]
        node.output[:] = [name and name + HOSTILE for name in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name += HOSTILE
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param += HOSTILE
    del graph.value_info[:]
    graph.name, model.producer_name = graph.name + HOSTILE, HOSTILE
    return model
