"""A checkpoint of QuantNAS' released code and its genotype -> the same network as a found.pt.

The network keeps the paper's arithmetic, so it computes what the released code computes. Sizes are read from
the tensors; what the genotype says must then fit every tensor.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from qnas.cost.network_cost import network_cost
from qnas.errors import ArchitectureError, CheckpointError
from qnas.files import check_outputs, write_file
from qnas.network.architecture import Architecture, Choice, Normalization, from_document
from qnas.network.layers import Layer
from qnas.network.lowering import lower
from qnas.network.operations import operation_convolutions
from qnas.quantization.quantizers import FLOAT_BITS, SMALLEST_SCALE
from qnas.search.imports.genotype import SKIP_LAYERS, Genotype, read_genotype
from qnas.torch.checkpoint import Found, check_size, check_state, read_plain, save_found
from qnas.torch.network import Network

SOURCE = "QuantNAS' released code"
# Our layers of convolutions -> the released modules, whose `net.0`, `net.1`, ... these are.
_RELEASED = (
    (r"(body\.\d+)\.distill_(\d)", r"\1.skip.\2"),
    (r"(body\.\d+)\.refine_(\d)", r"\1.body.\2"),
    (r"(body\.\d+)\.fusion", r"\1.cum_channels"),
    (r"(body\.\d+\.esa\.\w+)", r"\1"),
    (r"fusion", "c"),
    (r"conv_body", "c2"),
    (r"upsample", "upsample.0.0"),
    (r"tail\.0", "tail.0"),
)
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_UNUSED = re.compile(r"adn_(one|two)\..*|.*\.conv\.(flops|memory_size)")  # built, but never computed with


def import_files(
    checkpoint: Path, genotype: Path, output: Path, deployable: Path | None, force: bool
) -> Found:
    """Write `output`, and the architecture that can be deployed if a path is given. Raises QnasError."""
    check_outputs([output, deployable], force, [checkpoint, genotype])
    found = import_checkpoint(checkpoint, genotype)
    save_found(output, found.architecture, found.network, found.training, force)
    if deployable:
        write_file(deployable, found.architecture.deployable().to_json(), force)
    return found


def import_checkpoint(checkpoint: Path, genotype: Path) -> Found:
    """The network of two files of the released code. Raises CheckpointError, ArchitectureError."""
    choices = read_genotype(genotype)
    state = released_state(checkpoint)
    try:
        architecture = _architecture(choices, state, str(checkpoint))
        layers = lower(architecture)
    except ArchitectureError as error:
        raise ArchitectureError(f"{genotype} with {checkpoint}: {error}") from error
    check_size(network_cost(layers, 1, 1).parameters, checkpoint)
    network = Network(layers)
    for layer in layers:
        if layer.op == "conv" and layer.bits == FLOAT_BITS:  # a step that nothing reads
            state.pop(f"{_released(layer.name)}.quan_w_fn.s", None)
    ours, names = network.state_dict(), released_names(network.layers)
    expected = {
        name: ours[name].view(-1, 1, 1, 1) if name.endswith("_scale") else ours[name] for name in ours
    }
    check_state({names[name]: value for name, value in expected.items()}, state, str(checkpoint))
    for name in (names[name] for name in ours if name.endswith("_scale")):
        if float(state[name].detach().abs().min()) < SMALLEST_SCALE:
            raise CheckpointError(f"{checkpoint}: {name} has a step of zero: use an earlier checkpoint")
    network.load_state_dict({name: state[names[name]].view(value.shape) for name, value in ours.items()})
    record = {
        "imported": checkpoint.name,
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "genotype": genotype.name,
    }
    return Found(architecture, network.eval(), record)


def released_state(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, plain or in a training's `state_dict`, but for the unused ones.

    Raises CheckpointError.
    """
    document = read_plain(checkpoint, SOURCE)
    state = document.get("state_dict", document) if isinstance(document, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{checkpoint} holds no state_dict: use a checkpoint of {SOURCE}")
    return {name: value for name, value in state.items() if not _UNUSED.fullmatch(str(name))}


def released_names(layers: tuple[Layer, ...]) -> dict[str, str]:
    """Our tensor -> the released one, for all layers that have tensors."""
    names: dict[str, str] = {}
    for layer in layers:
        block = layer.name.rpartition(".")[0]
        match layer.op:
            case "conv":
                module = _released(layer.name)
                parts = {"weight": f"{module}.conv.weight", "weight_scale": f"{module}.quan_w_fn.s"}
            case "affine":
                parts = {part: f"{block}.adn.bn.{part}" for part in _NORM}
            case "deviation":
                parts = {part: f"{block}.adn.phi.{part}" for part in ("weight", "bias")}
            case "prelu":
                module = _released(layer.name.removesuffix(".input"))
                parts = {"weight": f"{module}.quan_a_fn.prelu.weight"}
            case _:
                continue
        names |= {f"{layer.name}.{part}": theirs for part, theirs in parts.items()}
    return names


def _released(name: str) -> str:
    """The released module of a convolution, or of the first one of a slot."""
    for pattern, module in _RELEASED:
        if match := re.fullmatch(rf"{pattern}(?P<index>\.\d+)?", name):
            return f"{match.expand(module)}.net{match['index'] or '.0'}"
    raise AssertionError(name)


def _architecture(genotype: Genotype, state: Mapping[str, Any], source: str) -> Architecture:
    """The genotype at the sizes that the tensors have."""
    channels = _width(state, "c2.net.0", source)
    outputs = _widths(state, "upsample.0.0.net", source)[-1]
    scale = math.isqrt(outputs // 3)
    if outputs != 3 * scale**2:
        raise CheckpointError(
            f"{source}: {outputs} channels before the pixel shuffle fit no scale: use 3 s^2"
        )
    layers = {}
    for slot, choice, reads, writes in _slots(genotype, channels, outputs):
        inside = _widths(state, _released(slot).removesuffix(".0"), source)[:-1]
        try:
            layers[slot] = Choice(_operation(choice.op, reads, writes, inside, channels), choice.bits)
        except ArchitectureError as error:
            raise ArchitectureError(f"layer {slot!r}: {error}") from None
    normalization: Normalization = "adq" if "body.0.adn.phi.weight" in state else "none"
    floats = any(choice.bits == FLOAT_BITS for choice in layers.values())
    found = Architecture(
        "rfdn_space", channels, len(genotype.body), scale, layers, normalization, None, arithmetic="paper",
        activation="prelu" if floats else "relu",
    )  # fmt: skip
    return from_document(found.to_document(), source)  # sizes and bits as in any other file


def _slots(genotype: Genotype, channels: int, outputs: int) -> Iterator[tuple[str, Choice, int, int]]:
    """(slot, choice, input channels, output channels), in the space's order."""
    for k, (body, skip) in enumerate(zip(genotype.body, genotype.skip, strict=True)):
        for index, choice in enumerate(skip):
            yield f"body.{k}.distill_{index}", choice, channels, channels // 2
        for index, choice in enumerate(body):
            width = channels if index < SKIP_LAYERS else channels // 2
            yield f"body.{k}.refine_{index}", choice, channels, width
    yield "upsample", genotype.upsample, channels, outputs
    yield "tail.0", genotype.tail, 3, 3


def _operation(op: str, reads: int, writes: int, inside: list[int], channels: int) -> str:
    """Our name of a released operation whose convolutions have `inside` channels between them."""
    chain = operation_convolutions(op, reads, writes, channels)
    if len(chain) > 1 and inside and [shape.out_channels for shape in chain[:-1]] != inside:
        return f"{op}_via_{'_'.join(map(str, inside))}"
    return op


def _widths(state: Mapping[str, Any], prefix: str, source: str) -> list[int]:
    """Output channels of the convolutions `prefix.0`, `prefix.1`, ..., one at least."""
    found = [_width(state, f"{prefix}.0", source)]
    while f"{prefix}.{len(found)}.conv.weight" in state:
        found.append(_width(state, f"{prefix}.{len(found)}", source))
    return found


def _width(state: Mapping[str, Any], module: str, source: str) -> int:
    weight = state.get(f"{module}.conv.weight")
    if not isinstance(weight, Tensor) or weight.ndim != 4:
        raise CheckpointError(f"{source} has no convolution {module}: use a checkpoint of {SOURCE}")
    return len(weight)
