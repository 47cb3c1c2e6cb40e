"""A quantized network starts from full precision with every channel in use."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from qnas.errors import CheckpointError
from qnas.network.architecture import Architecture, Pattern, find_architecture
from qnas.network.lowering import lower, uniform_layers
from qnas.search.training.warm_start import calibrate, split_into_dead_channels, warm_start
from qnas.testing.random_networks import noise
from qnas.torch.checkpoint import save_found
from qnas.torch.inference import to_network
from qnas.torch.network import Network

IMAGES = to_network(noise(24, 24)[None])


def espcn(dead: int) -> Network:
    """ESPCN at 4 bits, calibrated; the first `dead` channels of its second layer never pass their ReLU."""
    torch.manual_seed(0)
    network = Network(lower(find_architecture("espcn-w4")))
    hidden = network.module("conv_1")
    with torch.no_grad():
        for module in (network.module("conv_0"), hidden):
            module.weight.abs_()  # all alive
        hidden.bias[:dead] = -1e4
    calibrate(network, IMAGES)
    return network


def hidden_activity(network: Network) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = network.module("conv_2.input").register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        network(IMAGES)
    handle.remove()
    return seen[0].amax((0, 2, 3))


def test_a_dead_channel_becomes_half_of_a_busy_one_half_a_step_up() -> None:
    network = espcn(dead=1)
    writer, reader = network.module("conv_1"), network.module("conv_2")
    step = network.module("conv_2.input").scale().item()
    before, bias = reader.weight.detach().clone(), reader.bias.detach().clone()
    assert split_into_dead_channels(network, IMAGES) == 1
    original = next(c for c in range(1, 32) if torch.equal(writer.weight[c], writer.weight[0]))
    assert writer.bias[0].item() == writer.bias[original].item() + step / 2
    for channel in (0, original):
        torch.testing.assert_close(reader.weight[:, channel], before[:, original] / 2)
    shift = before[:, original].sum((1, 2)) / 2 * step / 2
    torch.testing.assert_close(reader.bias, bias - shift)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"normalization": "adq"}, {"normalization": "adq_linear"}),  # w and b of another function of std
        ({"activation": "prelu"}, {}),
        ({"version": 1, "pattern": Pattern(tail=0)}, {"pattern": Pattern(tail=0)}),  # without the long skip
    ],
    ids=["adq", "prelu", "version"],
)
def test_a_network_of_other_functions_is_no_start_although_its_tensors_fit(
    before: dict[str, Any], after: dict[str, Any], tmp_path: Path
) -> None:
    blank = replace(find_architecture("basic-w32"), channels=6, blocks=1, layers={})

    def network(changes: dict[str, Any]) -> tuple[Architecture, Network]:
        frame = replace(blank, **changes)
        found = replace(frame, layers=uniform_layers(frame, "simple_1x1", 32))
        return found, Network(lower(found))

    save_found(tmp_path / "found.pt", *network(before), {})
    warm_start(network(before)[1], tmp_path / "found.pt")
    with pytest.raises(CheckpointError, match=r"found\.pt has other skips, norms or activations"):
        warm_start(network(after)[1], tmp_path / "found.pt")


def test_no_channel_is_dead_afterwards() -> None:
    network = espcn(dead=5)
    assert (hidden_activity(network) == 0).sum() >= 5
    split_into_dead_channels(network, IMAGES)
    assert (hidden_activity(network) > 0).all()


def test_a_network_without_dead_channels_is_left_as_it_is() -> None:
    network = espcn(dead=0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert split_into_dead_channels(network, IMAGES) == 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_channels_of_a_residual_stream_are_not_touched() -> None:
    torch.manual_seed(0)
    network = Network(lower(find_architecture("basic-w4")))
    stream = network.module("head.1")
    with torch.no_grad():
        stream.bias[0] = -100.0
    calibrate(network, IMAGES)
    weight = stream.weight.detach().clone()
    split_into_dead_channels(network, IMAGES)
    assert torch.equal(stream.weight, weight)
