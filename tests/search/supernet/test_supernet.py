"""A supernet is every network of its space: it reads, mixes and trains as they do."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qnas.network.architecture import Architecture, Choice
from qnas.network.lowering import lower
from qnas.search.space.search_space import SearchSpace, from_document
from qnas.search.supernet.alphas import softmax
from qnas.search.supernet.bit_mixing import Mixer, Reader
from qnas.search.supernet.mixed_layer import Candidates, MixedLayer
from qnas.search.supernet.supernet import Supernet
from qnas.testing.per_operation import Draws, PerOperationSupernet
from qnas.torch.fake_quantization import Quantizer
from qnas.torch.network import Network

OPERATIONS = ["simple_3x3", "simple_1x1", "simple_5x5_grouped_3", "growth2_3x3", "conv_3x1_1x3"]
SPACES: dict[str, dict[str, Any]] = {
    "basic": {
        "network": "basic",
        "channels": 12,
        "blocks": 2,
        "normalization": "adq",
        "identical_blocks": True,
    },
    "rfdn": {"network": "rfdn_space", "channels": 12, "blocks": 1, "normalization": "adq"},
    "edmips-espcn": {"network": "espcn", "channels": 64, "blocks": 1},
    "edmips-srresnet": {"network": "srresnet", "channels": 8, "blocks": 2},
    "edmips-rfdn": {"network": "rfdn", "channels": 12, "blocks": 2},
}


def small(name: str, bits: Sequence[int] = (4, 8), **changes: Any) -> SearchSpace:
    document = {"scale": 2, "bits": list(bits), **SPACES[name], **changes}
    if not name.startswith("edmips"):
        document["operations"] = {"*": OPERATIONS, **document.get("operations", {})}
    return from_document(document, name)


def supernet_of(space: SearchSpace, mixer: Mixer = "shared", **options: Any) -> Supernet:
    """Lively: biases and norms are no longer those of the start; readers are set by the picture."""
    torch.manual_seed(0)
    supernet = Supernet(space, mixer, **options).train()
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if name.endswith("bias") and parameter.ndim:
                parameter.normal_(0, 0.05)
        if mixer != "san":
            with supernet.calibrated_by_data():
                supernet(picture(), uniform(supernet), Draws())
    return supernet


def picture() -> Tensor:
    return torch.rand(2, 3, 18, 16, generator=torch.Generator().manual_seed(3))


def uniform(supernet: Supernet) -> list[Tensor]:
    return [softmax(alpha) for alpha in supernet.alphas]


def random_probabilities(supernet: Supernet) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [softmax(torch.randn(alpha.shape, generator=generator)) for alpha in supernet.alphas]


def one_hot(space: SearchSpace, choices: dict[str, Choice]) -> list[Tensor]:
    probabilities = []
    for name in space.variables:
        p = torch.zeros(len(space.candidates(name)), len(space.bits))
        p[space.candidates(name).index(choices[name].op), space.bits.index(choices[name].bits)] = 1
        probabilities.append(p)
    return probabilities


def readers(supernet: Supernet) -> dict[str, Reader]:
    return {name: m for name, m in supernet.named_modules() if isinstance(m, Reader)}


# What is read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_layers_that_read_one_tensor_share_one_basis(name: str) -> None:
    supernet = supernet_of(small(name), "san")
    layers = {layer.name: layer for layer in supernet.layers}
    read, mixed = [], []
    for layer_name, module in supernet.named_modules():
        if isinstance(module, MixedLayer):
            module.register_forward_pre_hook(
                lambda _, args, n=layer_name: mixed.append((layers[n].inputs[0], args[0]))
            )
        if isinstance(module, Reader) and layer_name.endswith(".reader"):
            module.register_forward_hook(lambda _m, _a, basis: read.append(basis))
    supernet(picture(), uniform(supernet), Draws())
    sources = {source for source, _ in mixed}
    assert len(read) == len(sources)
    assert (len(sources) < len(mixed)) == (name not in ("edmips-espcn", "edmips-srresnet"))
    for source in sources:
        assert len({id(basis) for tensor, basis in mixed if tensor == source}) == 1


@pytest.mark.parametrize(("name", "first"), [("basic", "head.0"), ("edmips-rfdn", "conv_first")])
def test_the_image_is_read_as_it_is(name: str, first: str) -> None:
    supernet = supernet_of(small(name, [2, 4]))
    assert readers(supernet)["image.reader"].exact
    seen = []
    supernet.module(first).register_forward_pre_hook(lambda _, args: seen.append(args[0].tensors))
    supernet(picture(), uniform(supernet), Draws())
    ((tensor,),) = seen
    assert torch.equal(tensor, picture())


@pytest.mark.parametrize("name", SPACES)
def test_readers_are_signed_where_no_relu_stands_before_them(name: str) -> None:
    supernet = supernet_of(small(name))
    lowest: dict[str, float] = {}
    for path, module in readers(supernet).items():
        module.register_forward_pre_hook(lambda _, args, n=path: lowest.update({n: args[0].min().item()}))
    supernet(picture(), uniform(supernet), Draws())
    signed = {
        path: next(q.spec.signed for q in module.modules() if isinstance(q, Quantizer))
        for path, module in readers(supernet).items()
        if not module.exact
    }
    assert signed
    assert {path: lowest[path] < 0 for path in signed} == signed
    assert any(signed.values()) == (name in ("edmips-srresnet", "edmips-rfdn"))


def test_inside_a_chain_a_relu_stands_before_the_second_convolution() -> None:
    supernet = supernet_of(small("basic"))
    inner = [m for name, m in readers(supernet).items() if ".readers." in name]
    lowest = []
    for module in inner:
        module.register_forward_pre_hook(lambda _, args: lowest.append(args[0].min().item()))
    supernet(picture(), uniform(supernet), Draws())
    assert len(lowest) == 2 * len(supernet.space.slots)
    assert min(lowest) == 0


# What it computes ---------------------------------------------------------------------------------------


def derived(supernet: Supernet, architecture: Architecture, choices: dict[str, Choice]) -> Network:
    """The float network of `choices` with the supernet's weights."""
    network = Network(lower(architecture)).train()
    own = {k: v for k, v in supernet.state_dict().items() if k in network.state_dict()}
    network.load_state_dict(own, strict=False)
    with torch.no_grad():
        for layer in (layer for layer in supernet.layers if layer.op == "conv"):
            module = supernet.module(layer.name)
            if not isinstance(module, MixedLayer):
                continue
            for path, weight, bias in _chosen(supernet, layer.name, module, choices):
                network.module(path).weight.copy_(weight)
                network.module(path).bias.copy_(bias)
    return network


def _chosen(
    supernet: Supernet, layer: str, module: MixedLayer, choices: dict[str, Choice]
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(name in the derived network, weight, bias) of the convolutions of a searched layer."""
    (candidates,) = module.sets
    assert isinstance(candidates, Candidates)
    index = 0
    for name, slots in supernet.space.variables.items():
        if layer in slots:
            index = supernet.space.candidates(name).index(choices[name].op)
    if index in candidates.single_index:
        at, kernels = candidates.single_index.index(index), candidates.singles
        assert kernels is not None
        yield layer, kernels.own(kernels.weight, at), kernels.bias[at]
    else:
        for position, each in enumerate(candidates.chains[candidates.chain_index.index(index)]):
            yield f"{layer}.{position}", each.own(each.weight, 0), each.bias[0]


@pytest.mark.parametrize("operation", range(len(OPERATIONS)))
@pytest.mark.parametrize("name", SPACES)
def test_with_one_candidate_of_32_bits_it_is_the_float_network_of_that_choice(
    name: str, operation: int
) -> None:
    space = small(name, [8, 32], normalization="none" if name.startswith("edmips") else "adq")
    supernet = supernet_of(space)
    choices = {
        variable: Choice(ops[(index + operation) % len(ops)], 32)
        for index, variable in enumerate(space.variables)
        for ops in [space.candidates(variable)]
    }
    architecture = space.architecture(choices)
    assert not architecture.quantized
    network = derived(supernet, architecture, choices)
    y = supernet(picture(), one_hot(space, choices), Draws()).detach()
    assert float(y.std()) > 0.01
    torch.testing.assert_close(y, network(picture()).detach(), rtol=1e-4, atol=1e-5)
    if name == "basic" and not operation:
        wrong = dict(choices, upsample=Choice("simple_1x1", 32))
        assert not torch.allclose(y, supernet(picture(), one_hot(space, wrong), Draws()), atol=1e-3)


@pytest.mark.parametrize("mixer", ["independent", "shared"])
@pytest.mark.parametrize("name", ["basic", "rfdn", "edmips-rfdn"])
def test_it_computes_what_the_equations_do_operation_by_operation(name: str, mixer: Mixer) -> None:
    supernet = supernet_of(small(name, [4, 8, 32]), mixer).double()
    results = []
    for network in (PerOperationSupernet(supernet).double().train(), supernet):
        probabilities = [p.double().requires_grad_() for p in random_probabilities(supernet)]
        y = network(picture().double(), probabilities, Draws())
        y.square().mean().backward()
        results.append([y.detach(), *(p.grad for p in probabilities)])
    torch.testing.assert_close(*results, rtol=1e-7, atol=1e-9)


def test_the_oracle_has_no_layer_that_is_joined() -> None:
    supernet = supernet_of(small("rfdn"), "san")
    oracle = PerOperationSupernet(supernet)
    assert not any(isinstance(module, MixedLayer | Candidates) for module in oracle.modules())
    joined, own = Draws(), Draws()
    supernet(picture(), uniform(supernet), joined)
    oracle.train()(picture(), uniform(supernet), own)
    # 9 layers, 2 bit widths, 3 single convolutions and 2 chains of two: 7 inputs and 7 weights in each.
    assert own.counts == {"draw": 2 * 9 * 2 * 7, "draw_image": 0}
    assert joined.counts["draw"] == 9 * 5
    assert joined.counts["draw_image"] == len(readers(supernet))


# Alphas and options -------------------------------------------------------------------------------------


def test_all_convolutions_of_an_attention_block_share_its_alpha() -> None:
    space = small("edmips-rfdn")
    supernet = supernet_of(space)
    given = random_probabilities(supernet)
    seen: dict[str, Tensor] = {}
    for path, module in supernet.named_modules():
        if isinstance(module, MixedLayer):
            module.register_forward_pre_hook(lambda _, args, n=path: seen.update({n: args[1]}))
    supernet(picture(), given, Draws())
    esa = [path for path in seen if path.startswith("body.1.esa.")]
    assert sorted(path.removeprefix("body.1.esa.") for path in esa) == [
        "conv1", "conv2", "conv3", "conv3_", "conv4", "conv_f", "conv_max",
    ]  # fmt: skip
    assert all(seen[path] is given[list(space.variables).index("body.1.esa")] for path in esa)
    assert seen["body.0.fusion"] is given[list(space.variables).index("body.0.fusion")]


def test_identical_blocks_share_one_alpha() -> None:
    space = small("basic")
    supernet = supernet_of(space)
    assert len(supernet.alphas) == 8
    given, seen = random_probabilities(supernet), dict[str, Tensor]()
    for path, module in supernet.named_modules():
        if isinstance(module, MixedLayer):
            module.register_forward_pre_hook(lambda _, args, n=path: seen.update({n: args[1]}))
    supernet(picture(), given, Draws())
    assert seen["body.0.conv_1"] is seen["body.1.conv_1"]
    assert seen["body.0.conv_1"] is not seen["body.0.conv_0"]


def test_alphas_start_at_zero_and_are_no_weights() -> None:
    supernet = Supernet(small("basic", [2, 4, 8]))
    assert [tuple(alpha.shape) for alpha in supernet.alphas] == [(5, 3)] * 8
    assert all(bool((alpha == 0).all()) for alpha in supernet.alphas)
    weights = {id(parameter) for parameter in supernet.weights()}
    assert not weights & {id(alpha) for alpha in supernet.alphas}
    left = [n for n, p in supernet.named_parameters() if id(p) not in weights and not n.startswith("alphas")]
    assert left
    assert all(name.endswith(".step") for name in left)  # set from data


@pytest.mark.parametrize(
    ("name", "normalization", "mixer"),
    [
        *product(("basic", "rfdn"), ("none", "bn", "adq", "adadm"), ("shared",)),
        ("basic", "adq", "independent"),
        ("basic", "adq", "san"),
        ("edmips-rfdn", "none", "san"),
    ],
)
def test_every_weight_trains_with_every_normalization_and_mixer(
    name: str, normalization: str, mixer: Mixer
) -> None:
    supernet = supernet_of(small(name, normalization=normalization), mixer)
    weights, target = supernet.weights(), nn.functional.interpolate(picture(), scale_factor=2)
    optimizer, losses = torch.optim.Adam(weights, 1e-3), []
    still = {id(weight) for weight in weights}
    for _ in range(4):
        optimizer.zero_grad()
        loss = nn.functional.l1_loss(supernet(picture(), uniform(supernet), Draws()), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        still -= {id(p) for p in weights if p.grad is not None and float(p.grad.abs().max()) > 0}
    assert losses == sorted(losses, reverse=True)
    assert [n for n, p in supernet.named_parameters() if id(p) in still] == []
    kinds = {type(module).__name__ for module in supernet.modules()}
    assert ("Affine" in kinds, "Deviation" in kinds) == (normalization != "none", normalization[:2] == "ad")


def test_nothing_of_a_pass_is_kept() -> None:
    supernet = supernet_of(small("basic"))
    with pytest.raises(RuntimeError):
        supernet(torch.rand(1, 5, 8, 8), uniform(supernet), Draws())
    assert not supernet._bases
    y = supernet(picture(), uniform(supernet), Draws())
    other = supernet(picture().flip(0), uniform(supernet), Draws())
    torch.testing.assert_close(other, y.flip(0))
