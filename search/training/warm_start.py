"""From a full-precision network to the start of a quantized one: weights, scales, and no channel wasted."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from qnas.errors import CheckpointError
from qnas.network.layers import Layer
from qnas.quantization.quantizers import StepRule, best_power_of_two
from qnas.search.training.from_paper import short_state
from qnas.torch.checkpoint import load_found
from qnas.torch.fake_quantization import Quantizer
from qnas.torch.network import Convolution, Network


def warm_start(network: Network, path: Path) -> None:
    """Take weights, biases and norms from this network's `found.pt`, at other bits or of the paper's code.

    Raises CheckpointError.
    """
    found = load_found(path)
    theirs = found.network.state_dict()
    if found.network.arithmetic != network.arithmetic:
        if network.arithmetic == "paper":
            raise CheckpointError(
                f"{path} has short scales: warm-start a network of arithmetic short from it"
            )
        theirs = short_state(found.network, network)
    elif _functions(found.network) != _functions(network):
        raise CheckpointError(
            f"{path} has other skips, norms or activations: warm-start from the same network at other bits"
        )
    state = network.state_dict()
    for name, value in state.items():
        if name in theirs and theirs[name].shape == value.shape:
            state[name] = theirs[name]
        elif name.rsplit(".", 1)[-1] in ("weight", "bias"):
            shape = tuple(value.shape)
            raise CheckpointError(f"{path} has no {name} of shape {shape}: warm-start from the same network")
    network.load_state_dict(state)
    if found.network.layers != network.layers:  # the very same network goes on with its own
        _fit_weight_scales(network)


def _functions(network: Network) -> dict[str, tuple[str, str]]:
    """What layers compute that no bits change, by name: tensors of one shape may mean different things."""
    ops = ("add", "affine", "deviation", "multiply", "prelu", "scale")
    return {layer.name: (layer.op, layer.form) for layer in network.layers if layer.op in ops}


def calibrate(network: Network, x: Tensor, rule: StepRule = best_power_of_two) -> None:
    """Set every activation scale from the images x [N, 3, H, W]."""
    network.train()
    with torch.no_grad(), network.calibrated_by_data(rule):
        network(x)


def split_into_dead_channels(network: Network, x: Tensor, rule: StepRule = best_power_of_two) -> int:
    """Overwrite hidden channels that are zero on all of x [N, 3, H, W] by halves of busy ones; how many.

    The copy is made half a step larger, and its readers divide their weights between it and the original:
    in real numbers nothing changes where the channel is active, but two coarse values half a step apart are
    one value of twice the resolution. After outlier channel splitting (Zhao et al., ICML 2019).
    """
    activity = _activity(network, x)
    split = 0
    for writer, quantizer, readers in _hidden(network):
        rms, step = activity[quantizer.name], _mean_distance(network.module(quantizer.name))
        dead = torch.nonzero(rms == 0).flatten().tolist()
        use = sum(reader.weight.detach().square().sum((0, 2, 3)) for reader in readers).sqrt() * rms  # type: ignore[union-attr]
        busy = [c for c in use.argsort(descending=True).tolist() if rms[c] > 0]
        with torch.no_grad():
            for copy, original in zip(dead, busy, strict=False):
                writer.weight[copy] = writer.weight[original]
                writer.bias[copy] = writer.bias[original] + step / 2
                for reader in readers:
                    half = reader.weight[:, original] / 2
                    reader.weight[:, original], reader.weight[:, copy] = half, half
                    reader.bias.sub_(half.sum((1, 2)) * step / 2)
        split += min(len(dead), len(busy))
    if split:
        _fit_weight_scales(network)
        calibrate(network, x, rule)
    return split


def _mean_distance(quantizer: Quantizer) -> float:
    """Between neighbouring levels: the step of uniform ones."""
    return float(quantizer.scale().detach() * quantizer.spec.high / (2**quantizer.spec.bits - 1))


def _fit_weight_scales(network: Network) -> None:
    for module in network.modules():
        if isinstance(module, Convolution):
            module.fit_scale()


def _hidden(network: Network) -> list[tuple[Convolution, Layer, list[Convolution]]]:
    """(convolution, the ReLU quantizer that alone reads it, the convolutions that alone read that)."""
    readers: dict[str, list[Layer]] = {}
    for layer in network.layers:
        for name in layer.inputs:
            readers.setdefault(name, []).append(layer)
    found = []
    for layer in network.layers:
        after = readers.get(layer.name, [])
        if layer.op != "conv" or len(after) != 1 or after[0].quant is None or after[0].quant.signed:
            continue
        users = readers.get(after[0].name, [])
        if layer.groups == 1 and users and all(user.op == "conv" and user.groups == 1 for user in users):
            modules = [network.module(user.name) for user in users]
            found.append((network.module(layer.name), after[0], modules))
    return found


def _activity(network: Network, x: Tensor) -> dict[str, Tensor]:
    """Root mean square of every quantizer's output per channel, [C]."""
    activity: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            activity[name] = output.square().mean((0, 2, 3)).sqrt()

        return hook

    names = [layer.name for layer in network.layers if layer.op == "quantize"]
    handles = [network.module(name).register_forward_hook(watch(name)) for name in names]
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    return activity
