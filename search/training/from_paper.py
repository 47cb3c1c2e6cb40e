"""From the paper's arithmetic to short scales: the state with which the deployable twin computes the same.

Up to rounding, that is, and up to the argument of ESA's gates in a network without ADQ, which is 255/256 of
what it was, as all values are.
"""

from collections.abc import Iterator

from torch import Tensor

from qnas.errors import CheckpointError
from qnas.quantization.quantizers import FLOAT_BITS, PIXELS_PER_UNIT
from qnas.torch.deviation import ImageDeviation
from qnas.torch.network import Affine, FreeConvolution, Network

UNIT = PIXELS_PER_UNIT["paper"] / PIXELS_PER_UNIT["short"]  # every value of the twin is so much smaller


def short_state(network: Network, twin: Network) -> dict[str, Tensor]:
    """Weights, norms and deviations of `twin`; its scales are to be fitted. Raises CheckpointError."""
    state: dict[str, Tensor] = {}
    norms = {layer.inputs: network.module(layer.name) for layer in network.layers if layer.op == "affine"}
    for layer in network.layers:
        match layer.op:
            case "conv":
                values = _convolution(network.module(layer.name))
            case "affine":
                values = _norm(network.module(layer.name))
            case "prelu" if layer.name not in {each.name for each in twin.layers}:
                raise CheckpointError(
                    f"{layer.name} is a PReLU, for which integers have a ReLU: start without --warm-start"
                )
            case "prelu":
                values = iter(network.module(layer.name).state_dict().items())
            case "deviation":
                forms = {each.name: each.form for each in twin.layers}
                linear = forms.get(layer.name) == "linear"
                values = _deviation(network.module(layer.name), norms[layer.inputs], layer.name, linear)
            case _:
                continue
        state |= {f"{layer.name}.{part}": value for part, value in values}
    return state


def _convolution(module: FreeConvolution) -> Iterator[tuple[str, Tensor]]:
    """Weights clipped to the range of their scale, which may be far smaller than they are."""
    weight = module.weight.detach()
    if module.bits < FLOAT_BITS:
        spec, scale = module.spec, module.weight_scale.detach().view(-1, 1, 1, 1)
        weight = (weight / scale).clamp(spec.low, spec.high) * scale
    yield "weight", weight
    yield "bias", weight.new_zeros(len(weight))


def _norm(module: Affine) -> Iterator[tuple[str, Tensor]]:
    """Its output stays as it is."""
    state = module.state_dict()
    yield from state.items()
    yield "running_mean", state["running_mean"] * UNIT
    yield "running_var", state["running_var"] * UNIT**2


def _deviation(module: ImageDeviation, norm: Affine, name: str, linear: bool) -> Iterator[tuple[str, Tensor]]:
    """The line `w * std + b`, or a power of std: equal, in slope too, at the std that the norm has seen."""
    std = (norm.running_var.mean() + norm.running_mean.var(correction=0)).sqrt()
    weight, bias = module.state_dict()["weight"].view(()), module.state_dict()["bias"].view(())
    factor = weight * std + bias
    if not factor > 0:
        raise CheckpointError(
            f"{name} multiplies by {float(factor):.3g} on average, which short scales cannot: "
            "start the deployable network without --warm-start"
        )
    power = weight if linear else weight * std / factor
    yield "weight", power
    yield "bias", bias * UNIT if linear else (factor * UNIT).log() - power * (std * UNIT).log()
    yield "running_factor", factor * UNIT
