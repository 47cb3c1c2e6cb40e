"""A searched layer computes equations 3 to 6 of QuantNAS in fewer convolutions than `per_operation`."""

import shutil
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from qnas.network.layers import Layer
from qnas.network.operations import ConvShape
from qnas.search.supernet.alphas import softmax
from qnas.search.supernet.bit_mixing import Mixer, Reader
from qnas.search.supernet.kernels import Kernels
from qnas.search.supernet.mixed_layer import Candidates, MixedLayer
from qnas.testing.per_operation import Draws, OwnConvolution, PerOperation
from qnas.testing.searched_layers import (
    CHAINS,
    MIXERS,
    SINGLES,
    all_kernels,
    random_alpha,
    random_input,
    reader_of,
    searched,
)

BITS = ((4,), (4, 8), (2, 4, 8), (2, 3, 4, 8), (32,), (4, 32), (2, 4, 8, 32))


def differentiated(compute: Callable[[Tensor, Tensor], Tensor], x: Tensor, alpha: Tensor) -> list[Tensor]:
    """[output, gradient of x, gradient of alpha] of a sum with random factors; parameters get theirs too."""
    x, alpha = x.clone().requires_grad_(), alpha.clone().requires_grad_()
    y = compute(x, softmax(alpha))
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=y.dtype)).sum().backward()
    assert x.grad is not None
    assert alpha.grad is not None
    return [y.detach(), x.grad, alpha.grad]


def joined_gradients(layer: MixedLayer) -> Iterator[Tensor]:
    """Of every candidate's weights, biases and scales, at its own size, in the order of the candidates."""
    for candidates in layer.sets:
        assert isinstance(candidates, Candidates)
        for index in range(len(candidates.single_index) + len(candidates.chain_index)):
            if index in candidates.single_index:
                assert candidates.singles is not None
                parts = [(candidates.singles, candidates.single_index.index(index))]
            else:
                parts = [(each, 0) for each in candidates.chains[candidates.chain_index.index(index)]]
            for kernels, position in parts:
                yield kernels.own(kernels.weight.grad, position)
                yield kernels.bias.grad[position]
                if hasattr(kernels, "scale"):
                    yield kernels.scale.grad[:, position]


def own_gradients(oracle: PerOperation) -> Iterator[Tensor]:
    for convolution in (m for m in oracle.modules() if isinstance(m, OwnConvolution)):
        yield convolution.weight.grad
        yield convolution.bias.grad
        if hasattr(convolution, "scale"):
            yield convolution.scale.grad


def assert_same(
    operations: Sequence[str], bits: tuple[int, ...], mixer: Mixer, *, signed: bool = False, seed: int = 0
) -> None:
    layer = searched(operations, bits, mixer, seed=seed)
    reader = reader_of(bits, mixer, signed=signed)
    oracle = PerOperation(layer, reader)
    x, alpha, noise = random_input(seed), random_alpha(len(operations), len(bits), seed), Draws()
    ours = differentiated(lambda x, p: layer(reader(x, noise), p, noise), x, alpha)
    theirs = differentiated(lambda x, p: oracle(x, p, noise), x, alpha)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    gradients, expected = list(joined_gradients(layer)), list(own_gradients(oracle))
    assert len(gradients) >= 2 * len(operations)
    torch.testing.assert_close(gradients, expected, rtol=1e-9, atol=1e-9)


# The equations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", BITS, ids=str)
@pytest.mark.parametrize("mixer", ["independent", "shared"])
def test_outputs_and_all_gradients_are_those_of_the_equations(mixer: Mixer, bits: tuple[int, ...]) -> None:
    assert_same((*SINGLES, *CHAINS), bits, mixer)


@pytest.mark.parametrize("operations", [("simple_3x3",), SINGLES[:2], SINGLES, CHAINS, CHAINS[:1]], ids=len)
@pytest.mark.parametrize("mixer", ["independent", "shared"])
def test_any_kind_of_candidates_may_stand_alone(mixer: Mixer, operations: tuple[str, ...]) -> None:
    assert_same(operations, (4, 8), mixer, signed=True, seed=1)


@given(
    st.lists(st.sampled_from((*SINGLES, *CHAINS, "simple_1x1_grouped_3", "conv_5x1_1x5")), min_size=1,
             max_size=5, unique=True),
    st.sets(st.sampled_from((2, 3, 4, 8, 32)), min_size=1, max_size=4),
    st.sampled_from(["independent", "shared"]), st.booleans(), st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=25)
def test_operations_in_any_order_at_any_bits_are_summed_right(
    operations: list[str], bits: set[int], mixer: Mixer, signed: bool, seed: int
) -> None:
    assert_same(operations, tuple(sorted(bits)), mixer, signed=signed, seed=seed)


@pytest.mark.parametrize("build", ["layer", "oracle"])
def test_a_layer_of_one_weight_by_hand(build: str) -> None:
    # x = 0.6: step 1/4 at 4 bits -> 0.5, step 1 at 2 bits -> 1.0. w = 0.6: scale 1/4 at 4 bits -> 0.5,
    # scale 1/2 at 2 bits -> 0.5. Shares 1/4 (2 bits) and 3/4 (4 bits): x = 0.625, w = 0.5, bias 0.125.
    chains = [(ConvShape(1, 1, (1, 1)),)]
    layer = MixedLayer(Layer("layer", "conv", ("x",), 1), chains, (2, 4), "shared", merged=False)
    reader = Reader((2, 4), "shared", signed=False)
    (kernels,) = all_kernels(layer)
    with torch.no_grad():
        kernels.weight.fill_(0.6)
        kernels.bias.fill_(0.125)
        kernels.scale.copy_(torch.tensor([0.5, 0.25]).view(2, 1, 1))
        for bits, step in (("2", 1.0), ("4", 0.25)):
            reader.get_submodule(bits).step.fill_(step)  # type: ignore[operator, union-attr]
    x, p, noise = torch.full((1, 1, 1, 1), 0.6), torch.tensor([[0.25, 0.75]]), Draws()
    y = layer(reader(x, noise), p, noise) if build == "layer" else PerOperation(layer, reader)(x, p, noise)
    assert y.item() == 0.625 * 0.5 + 0.125


@pytest.mark.parametrize("mixer", ["independent", "shared"])
def test_an_exact_input_is_not_quantized(mixer: Mixer) -> None:
    layer, reader = searched(SINGLES, (2, 4), mixer), reader_of((2, 4), mixer, exact=True)
    x, alpha, noise = random_input(), random_alpha(5, 2), Draws()
    ours = differentiated(lambda x, p: layer(reader(x, noise), p, noise), x, alpha)
    oracle = PerOperation(layer, reader)
    torch.testing.assert_close(ours, differentiated(lambda x, p: oracle(x, p, noise), x, alpha))
    assert torch.equal(reader(x, noise).tensors[0], x)


def test_strides_and_padding_are_those_of_the_layer() -> None:
    torch.manual_seed(0)
    layer = Layer("esa", "conv", ("x",), 9, (3, 3), stride=2)
    mixing = MixedLayer(layer, [(ConvShape(6, 9, (3, 3)),)], (32,), "shared", merged=False).double()
    reader, x, noise = reader_of((32,), "shared"), random_input(), Draws()
    (kernels,) = all_kernels(mixing)
    y = mixing(reader(x, noise), torch.ones(1, 1).double(), noise)
    torch.testing.assert_close(y, F.conv2d(x, kernels.weight[0], stride=2))
    assert y.shape == (2, 9, 3, 2)


# Probabilities of zero ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own doings
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++")
@pytest.mark.parametrize(("bits", "signed"), [((4, 8), False), ((2, 8, 32), True)])
def test_a_compiled_mixture_is_that_of_the_quantizers_with_its_gradients(
    bits: tuple[int, ...], signed: bool
) -> None:
    plain, compiled = (Reader(bits, "shared", signed=signed, compiled=each) for each in (False, True))
    shares = torch.rand(len(bits), generator=torch.Generator().manual_seed(1))
    results = []
    for reader in (plain, compiled):
        x, own = (2 * random_input().float()).requires_grad_(), shares.clone().requires_grad_()
        mixture = reader(x, Draws()).mixed(own)
        (mixture * torch.arange(mixture.numel()).view_as(mixture).sin()).sum().backward()
        results.append((mixture, x.grad, own.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("mixer", MIXERS)
def test_candidates_of_probability_zero_add_nothing_and_no_nan(mixer: Mixer, merged: bool) -> None:
    operations, bits = (*SINGLES, *CHAINS), (4, 8, 32)
    for chosen in range(len(operations)):
        layer, reader = searched(operations, bits, mixer, merged=merged), reader_of(bits, mixer)
        p = torch.zeros(len(operations), 3, dtype=torch.float64)
        p[chosen, 2] = 1.0
        p.requires_grad_()
        x, noise = random_input().requires_grad_(), Draws()
        y = layer(reader(x, noise), p, noise)
        y.sum().backward()
        leaves = [p, x, *(each for each in layer.parameters() if each.grad is not None)]
        assert all(bool(each.grad.isfinite().all()) for each in leaves)  # type: ignore[union-attr]
        convolutions = _candidate(layer, chosen)
        z = x
        for position, (kernels, index) in enumerate(convolutions):
            z = F.relu(z) if position else z
            z = F.conv2d(
                z, kernels.own(kernels.weight, index), kernels.bias[index],
                padding=[k // 2 for k in kernels.shapes[index].kernel], groups=kernels.shapes[index].groups,
            )  # fmt: skip
        torch.testing.assert_close(y, z)


def _candidate(layer: MixedLayer, index: int) -> list[tuple[Kernels, int]]:
    """The convolutions of a candidate of SINGLES + CHAINS, those of the last bit width."""
    candidates = layer.sets[-1]
    assert isinstance(candidates, Candidates)
    assert candidates.singles is not None
    if index < len(SINGLES):
        return [(candidates.singles, index)]
    return [(each, 0) for each in candidates.chains[index - len(SINGLES)]]


# Merged -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", BITS, ids=str)
def test_merged_is_exact_where_all_candidates_have_the_same_shares(bits: tuple[int, ...]) -> None:
    operations = (*SINGLES, *CHAINS)
    exact, merged = (searched(operations, bits, "shared", merged=each) for each in (False, True))
    reader, x, noise = reader_of(bits, "shared"), random_input(), Draws()
    alpha = random_alpha(len(operations), 1) + random_alpha(1, len(bits), 1)
    p = softmax(alpha)
    torch.testing.assert_close(merged(reader(x, noise), p, noise), exact(reader(x, noise), p, noise))
    if len(bits) > 1:
        p = softmax(random_alpha(len(operations), len(bits)))
        difference = merged(reader(x, noise), p, noise) - exact(reader(x, noise), p, noise)
        assert difference.abs().max().item() > 1e-3


@pytest.mark.parametrize(
    ("operations", "bits", "mixer", "merged", "expected"),
    [
        (SINGLES, (4, 8), "shared", True, 1),
        (SINGLES, (2, 3, 4, 8), "shared", True, 1),
        (SINGLES, (2, 3, 4, 8), "san", True, 1),
        (SINGLES, (4, 8), "shared", False, 2),  # 2 * 25 <= 1 + 9 + 25 + 3 + 25 / 3 + what mixing costs
        (SINGLES, (2, 3, 4, 8), "shared", False, 5),  # 4 * 25 is more: one by one
        (SINGLES, (2, 3, 4, 8), "san", False, 2),
        (SINGLES, (4, 8), "independent", False, 2),
        ((*SINGLES, *CHAINS), (4, 8), "shared", True, 1 + 2 + 3 + 2),
    ],
)
def test_single_convolutions_run_as_few(
    operations: tuple[str, ...], bits: tuple[int, ...], mixer: Mixer, merged: bool, expected: int
) -> None:
    layer, reader = searched(operations, bits, mixer, merged=merged), reader_of(bits, mixer)
    x, p, noise = random_input(), softmax(random_alpha(len(operations), len(bits))), Draws()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        layer(reader(x, noise), p, noise)
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["aten::conv2d"] == expected


# Kernels ------------------------------------------------------------------------------------------------


def test_natural_kernels_are_cut_out_of_the_middle_and_of_their_groups() -> None:
    shapes = [ConvShape(6, 9, (3, 3), 3), ConvShape(6, 9, (1, 5)), ConvShape(6, 9, (5, 5))]
    kernels = Kernels(shapes, (8,), "shared")
    numbers = torch.arange(3 * 9 * 6 * 25).view(3, 9, 6, 5, 5)
    grouped = kernels.own(numbers, 0)
    assert grouped.shape == (9, 2, 3, 3)
    assert torch.equal(grouped[:3], numbers[0, :3, :2, 1:4, 1:4])
    assert torch.equal(grouped[3:6], numbers[0, 3:6, 2:4, 1:4, 1:4])
    assert torch.equal(grouped[6:], numbers[0, 6:, 4:, 1:4, 1:4])
    assert torch.equal(kernels.own(numbers, 1), numbers[1, :, :, 2:3, :])
    assert torch.equal(kernels.own(numbers, 2), numbers[2])
    assert kernels.counts.tolist() == [18, 30, 150]
    for index, shape in enumerate(shapes):  # the mask holds what is cut out, and no more
        assert bool((kernels.own(kernels.mask, index) == 1).all())
        assert kernels.mask[index].sum() == kernels.own(kernels.mask, index).numel(), shape


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_weights_outside_the_mask_stay_zero(mixer: Mixer, optimizer: type[torch.optim.Optimizer]) -> None:
    bits = (4, 8)
    layer, reader, noise = searched(SINGLES, bits, mixer), reader_of(bits, mixer), Draws()
    momentum = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    training = optimizer(layer.parameters(), lr=0.1, weight_decay=0.1, **momentum)
    before = [kernels.weight.detach().clone() for kernels in all_kernels(layer)]
    for step in range(3):
        training.zero_grad()
        y = layer(reader(random_input(step), noise), softmax(random_alpha(5, 2)), noise)
        y.square().mean().backward()
        training.step()
    layer.sets[0].shrink(0.1)  # type: ignore[operator]
    for kernels, start in zip(all_kernels(layer), before, strict=True):
        weight = kernels.weight.detach()
        assert float((weight * (1 - kernels.mask)).abs().max()) == 0
        assert float(((weight - start) * kernels.mask).abs().max()) > 0


def test_scales_start_where_those_of_lsq_do() -> None:
    # One channel of 2 weights, 0.3 and -0.5, in groups: mean 0.4, 2 * 0.4 / sqrt(7) at 4 bits, / sqrt(127).
    kernels = Kernels([ConvShape(4, 2, (1, 1), 2), ConvShape(4, 2, (3, 3))], (4, 8, 32), "shared")
    with torch.no_grad():
        kernels.weight[0] = 0
        kernels.weight[0, 0, :2, 1, 1] = torch.tensor([0.3, -0.5])
    kernels.reset_scale()
    assert kernels.scale[:, 0, 0].tolist() == pytest.approx([0.8 / 7**0.5, 0.8 / 127**0.5])
