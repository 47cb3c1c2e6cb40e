"""Lloyd levels: the numbers, the table that ships, the quantizer that trains with it, and who gets one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qnas.cost.network_cost import network_cost
from qnas.export.integers import integer_network
from qnas.integer.interpreter import run
from qnas.network.architecture import Architecture, find_architecture, from_document
from qnas.network.lowering import lower
from qnas.quantization.lloyd import hwgq_levels, lloyd_levels, lloyd_step, lloyd_table
from qnas.quantization.quantizers import (
    Levels,
    QuantParams,
    QuantSpec,
    best_power_of_two,
    dequantize,
    on_grid,
    quantize,
)
from qnas.search.train_cli import main
from qnas.search.training.warm_start import calibrate, split_into_dead_channels
from qnas.testing.random_networks import build, noise
from qnas.torch.checkpoint import FORMAT, VERSION, load_found, load_plain, save_found, save_plain
from qnas.torch.fake_quantization import Quantizer
from qnas.torch.inference import to_network
from qnas.torch.network import Network

TWO_BITS = QuantSpec(2, signed=False, levels="lloyd")
FOUR_BITS = QuantSpec(4, signed=False, levels="lloyd")
BITS = st.integers(2, 7)
ESPCN = replace(find_architecture("espcn-w4"), levels="lloyd")


def half_wave(deviation: float) -> np.ndarray:
    """10000 values of a half-wave Gaussian."""
    return np.abs(np.random.default_rng(0).normal(0, deviation, 10_000)).astype(np.float32)


# The numbers -----------------------------------------------------------------------------------------------


# Max, Quantizing for minimum distortion, IRE Trans. Inf. Theory 6 (1960), table I: 3 and 7 levels.
@pytest.mark.parametrize(("bits", "published"), [(1, [0, 1.224]), (2, [0, 0.5606, 1.188, 2.033])])
def test_levels_with_a_zero_are_those_of_max_1960_for_odd_counts(bits: int, published: list[float]) -> None:
    assert hwgq_levels(bits, zero=True) == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_every_level_but_the_zero_is_the_centroid_of_its_cell(bits: int) -> None:
    levels = np.array(hwgq_levels(bits, zero=True))
    middles = (levels[1:] + levels[:-1]) / 2
    edges = np.append(middles, middles[-1] + 8)
    parts = (np.arange(4000)[:, None] + 0.5) / 4000
    x = middles + parts * np.diff(edges)  # numerically, where the code has the closed form
    density = np.exp(-(x**2) / 2)
    assert levels[0] == 0
    assert levels[1:] == pytest.approx((x * density).sum(axis=0) / density.sum(axis=0), rel=1e-5)


def test_two_bits_have_these_levels_thresholds_and_ties() -> None:
    # 0.5606 / 2.0334 * 255 = 70.3, 1.1881 / 2.0334 * 255 = 149.0; middles 35, 109.5, 202
    assert lloyd_levels(2).tolist() == [0, 70, 149, 255]
    table = lloyd_table(2)
    assert table[[0, 35, 36, 109, 110, 202, 203, 255]].tolist() == [0, 0, 70, 70, 149, 149, 255, 255]
    assert lloyd_step(2) * 255 == pytest.approx(2.0334, abs=1e-4)


@pytest.mark.parametrize("bits", range(2, 8))
def test_a_table_maps_every_byte_to_the_nearest_level_and_levels_to_themselves(bits: int) -> None:
    table, levels = lloyd_table(bits), lloyd_levels(bits).astype(int)
    assert (table.shape, table.dtype) == ((256,), np.uint8)
    distances = np.abs(np.arange(256)[:, None] - levels)
    assert np.array_equal(np.abs(np.arange(256) - table), distances.min(axis=1))
    assert np.array_equal(table[levels], levels)
    assert (levels[0], levels[-1]) == (0, 255)
    assert len(set(table.tolist())) == (127 if bits == 7 else 2**bits)  # two of 128 round to 8


def test_a_table_cannot_be_changed_for_everyone() -> None:
    with pytest.raises(ValueError, match="read-only"):
        lloyd_table(4)[0] = 1


@pytest.mark.parametrize("bits", range(2, 8))
def test_lloyd_levels_have_less_error_than_uniform_ones_over_an_octave_of_deviations(bits: int) -> None:
    uniform = QuantSpec(bits, signed=False)
    assert octave_error(replace(uniform, levels="lloyd")) < octave_error(uniform)


def octave_error(spec: QuantSpec) -> float:
    """Mean squared error of half-wave Gaussians, relative, each at its best power of two: 1 .. 2 of them."""
    waves = [half_wave(2.0**e) for e in np.arange(8) / 8]
    errors = [on_grid(x, spec, best_power_of_two(x, spec)) - x for x in waves]
    return float(np.mean([np.square(e).mean() / x.var() for e, x in zip(errors, waves, strict=True)]))


# The quantizer ---------------------------------------------------------------------------------------------


def test_a_value_goes_to_the_nearest_byte_and_from_there_to_the_nearest_level() -> None:
    x = np.array([-3, 17.5, 17.74, 17.75, 1000], np.float32)  # in steps: 35, 35.48 and the tie 35.5, to 36
    assert on_grid(x, TWO_BITS, 0.5).tolist() == [0, 0, 0, 35, 127.5]


def test_the_grid_of_lloyd_levels_is_a_whole_byte() -> None:
    params = QuantParams.activation(FOUR_BITS, 0.5)
    assert (params.zero_point, params.low, params.high) == (0, 0, 255)


def test_the_best_power_of_two_may_clip_to_the_top_level() -> None:
    # 2^-8: 1 is clipped to 255/256; 2^-7: 1 is 128 steps, nearest level 149, 21/128 off
    assert best_power_of_two(np.ones(1, np.float32), TWO_BITS) == 2**-8
    assert best_power_of_two(np.zeros(1, np.float32), TWO_BITS) == 2**-7


@given(BITS, st.integers(-9, 3), hnp.arrays(np.float32, (1, 2, 3, 4), elements=st.floats(-1, 1, width=32)))
def test_torch_computes_what_numpy_defines_in_both_modes(bits: int, e: int, unit: np.ndarray) -> None:
    spec = QuantSpec(bits, signed=False, levels="lloyd")
    x = unit * np.float32(300 * 2.0**e)
    module = Quantizer(spec)
    module.step.data.fill_(2.0**e)
    expected = on_grid(x, spec, 2.0**e)
    for mode in (True, False):
        assert np.array_equal(module.train(mode)(torch.from_numpy(x)).detach().numpy(), expected)


def test_gradients_pass_inside_the_range_and_move_the_step_as_those_of_lsq_do() -> None:
    module = Quantizer(TWO_BITS)
    module.step.data.fill_(1.0)
    x = torch.tensor([-1.0, 20, 100, 300], requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]
    # levels 0, 0, 70, 255; level - x inside, the level outside: 0 - 20 - 30 + 255
    assert module.step.grad.item() == pytest.approx(205 / (4 * 255) ** 0.5)


def test_what_is_not_a_number_stays_none() -> None:
    x = torch.tensor([float("nan"), 3.0])
    assert Quantizer(TWO_BITS)(x).isnan().tolist() == [True, False]


def test_the_first_step_is_that_of_a_unit_gaussian() -> None:
    x = half_wave(1)
    step = Quantizer(FOUR_BITS).scale().item()
    assert step == best_power_of_two(x, FOUR_BITS) == 2**-6


# Who gets one ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["espcn-w4", "basic-w48-example", "rfdn-adq-w48-example", "srresnet-w4"])
def test_lloyd_levels_are_for_hwgq_below_8_bits_and_nothing_else_changes(name: str) -> None:
    uniform = find_architecture(name)
    expected = []
    for layer in lower(uniform):
        spec = layer.quant
        if spec is not None and not spec.signed and spec.bits < 8:
            layer = replace(layer, quant=replace(spec, levels="lloyd"))
        expected.append(layer)
    lloyd = lower(replace(uniform, levels="lloyd"))
    assert lloyd == tuple(expected)
    assert lloyd != lower(uniform)


def test_they_cost_as_many_bitops_and_bytes_as_uniform_ones() -> None:
    uniform = find_architecture("basic-w48-example")
    costs = [network_cost(lower(replace(uniform, levels=levels)), 32, 32) for levels in ("uniform", "lloyd")]
    assert costs[0] == costs[1]


def test_their_state_has_the_tensors_of_uniform_ones() -> None:
    uniform = Network(lower(find_architecture("espcn-w4")))
    assert list(Network(lower(ESPCN)).state_dict()) == list(uniform.state_dict())


def test_an_architecture_of_before_has_uniform_levels() -> None:
    document = ESPCN.to_document()
    del document["levels"]
    assert from_document(document, "old.json") == find_architecture("espcn-w4")


def test_a_found_network_of_before_has_uniform_levels_and_a_lloyd_one_is_read_back(
    tmp_path: Path, calibrated: Callable[[Architecture], Network]
) -> None:
    new, old = tmp_path / "new.pt", tmp_path / "old.pt"
    save_found(new, ESPCN, calibrated(ESPCN), {})
    assert load_found(new).architecture == ESPCN
    document = load_plain(new, FORMAT, VERSION)
    del document["architecture"]["levels"]
    save_plain(old, document, force=False)
    assert load_found(old).architecture == find_architecture("espcn-w4")


# Training and what ships -----------------------------------------------------------------------------------


def train(*arguments: str, data: Path, output: Path) -> None:
    options = ["--data", str(data), "-o", str(output), "--steps", "3", "--batch", "2", "--threads", "1"]
    result = CliRunner().invoke(main, ["espcn-w4", *options, "--patch", "8", *arguments])
    assert result.exit_code == 0, result.output


def test_the_command_trains_a_lloyd_twin_from_full_precision_and_from_uniform_levels(
    photographs: Path, tmp_path: Path
) -> None:
    full, uniform, *twins = (tmp_path / f"{k}.pt" for k in range(4))
    train("--bits", "32", data=photographs, output=full)
    train("--warm-start", str(full), data=photographs, output=uniform)
    for source, twin in zip((full, uniform), twins, strict=True):
        train("--levels", "lloyd", "--warm-start", str(source), data=photographs, output=twin)
        assert load_found(twin).architecture == ESPCN


def test_levels_that_change_nothing_are_refused() -> None:
    result = CliRunner().invoke(main, ["espcn-w8", "--levels", "lloyd", "--show"])
    assert result.exit_code == 2
    assert "--levels lloyd changes nothing in espcn-w8: it needs --bits below 8" in result.output


def test_a_dead_channel_is_put_to_use_half_a_mean_distance_of_levels_up() -> None:
    torch.manual_seed(0)
    network = Network(lower(ESPCN))
    writer = network.module("conv_1")
    with torch.no_grad():
        for module in (network.module("conv_0"), writer):
            module.weight.abs_()  # all alive
        writer.bias[0] = -1e4
    images = to_network(noise(24, 24)[None])
    calibrate(network, images)
    step = network.module("conv_2.input").scale().item()
    assert split_into_dead_channels(network, images) == 1
    original = next(c for c in range(1, 32) if torch.equal(writer.weight[c], writer.weight[0]))
    assert writer.bias[0].item() - writer.bias[original].item() == step * 17 / 2  # 255 / 15 = 17


@pytest.mark.parametrize("name", ["espcn-w4", "rfdn-adq-w48-example"])
def test_a_lloyd_network_ships_as_bytes_and_tables_that_compute_its_pixels(name: str) -> None:
    found = build(replace(find_architecture(name), levels="lloyd"))
    image = noise(20, 24)[None]
    with torch.no_grad():
        pixels = found.network(to_network(image)) * 256
    shipped = run(integer_network(found), image.transpose(0, 3, 1, 2))
    assert np.array_equal(shipped, pixels.numpy())


def test_the_table_behind_the_8_bit_grid_is_the_quantizer() -> None:
    x = half_wave(1)
    params = QuantParams.activation(FOUR_BITS, 2**-6)
    assert np.array_equal(
        dequantize(lloyd_table(4)[quantize(x, params)], params), on_grid(x, FOUR_BITS, 2**-6)
    )


def signal_to_error(bits: int, levels: Levels) -> float:
    """dB on a half-wave Gaussian, the mean over deviations of one octave, each with its best power of two."""
    wave = np.maximum(np.random.default_rng(0).normal(size=20_000), 0)
    spec, ratios = QuantSpec(bits, signed=False, levels=levels), []
    for deviation in 2 ** np.linspace(0, 1, 8, endpoint=False):
        x = (deviation * wave).astype(np.float32)
        error = on_grid(x, spec, best_power_of_two(x, spec)) - x
        ratios.append(10 * np.log10(np.square(x).sum() / np.square(error).sum()))
    return float(np.mean(ratios))


@pytest.mark.parametrize(
    ("bits", "uniform", "lloyd"),
    [(2, 12.7, 13.0), (3, 18.1, 19.1), (4, 23.3, 25.1), (5, 28.6, 30.9), (6, 33.9, 35.8), (7, 39.3, 41.7)],
)
def test_lloyd_levels_lose_less_of_a_half_wave_than_uniform_ones(
    bits: int, uniform: float, lloyd: float
) -> None:
    """The table of docs/decisions/0008-lloyd-levels.md."""
    assert signal_to_error(bits, "uniform") == pytest.approx(uniform, abs=0.06)
    assert signal_to_error(bits, "lloyd") == pytest.approx(lloyd, abs=0.06)
