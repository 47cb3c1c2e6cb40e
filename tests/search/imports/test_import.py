"""A checkpoint of QuantNAS' released code computes the same here, counts the same, and can be trained on."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from qnas.cost.network_cost import network_cost
from qnas.errors import ArchitectureError, CheckpointError
from qnas.export.cli import main as export
from qnas.network.architecture import Architecture, find_architecture, from_json
from qnas.network.lowering import lower
from qnas.search.import_cli import main
from qnas.search.imports.paper_import import import_checkpoint
from qnas.search.train_cli import main as train
from qnas.search.training.from_paper import short_state
from qnas.search.training.warm_start import warm_start
from qnas.testing.random_networks import build, noise
from qnas.testing.released_network import Genes, output, random_state
from qnas.torch.checkpoint import Found, load_found, save_found, save_plain
from qnas.torch.inference import to_network, to_pixels, upscaler
from qnas.torch.network import FreeConvolution, Network

VARIED = Genes(
    body=[[("decenc_3x3_2", 4), ("conv_3x1_1x3", 8), ("simple_3x3_grouped_full", 3), ("simple_3x3", 2)]],
    skip=[[("conv_5x1_1x5", 4), ("growth2_1x1", 8), ("simple_1x1_grouped_3", 2)]],
    upsample=[("simple_3x3", 4)],
    tail=[("growth1_3x3", 8)],
)
PLAIN = Genes(
    body=[[("simple_1x1", 8), ("simple_3x3", 8), ("growth1_1x1", 8), ("simple_1x1", 4)]] * 2,
    skip=[[("simple_1x1", 8), ("simple_1x1", 8), ("simple_1x1", 8)]] * 2,
    upsample=[("growth1_1x1", 8)],
    tail=[("simple_1x1", 8)],
)
FLOAT = Genes(
    body=[[("simple_3x3", 32), ("growth1_3x3", 32), ("decenc_3x3_2", 32), ("simple_1x1", 32)]] * 2,
    skip=[[("simple_1x1", 32), ("simple_3x3", 32), ("conv_3x1_1x3", 32)]] * 2,
    upsample=[("growth1_1x1", 32)],
    tail=[("simple_3x3", 32)],
)
HALF_FLOAT = Genes(
    body=[[("simple_3x3", 32), ("growth1_3x3", 4), ("simple_3x3", 32), ("simple_1x1", 8)]],
    skip=[[("simple_1x1", 4), ("simple_3x3", 32), ("conv_3x1_1x3", 32)]],
    upsample=[("simple_1x1", 32)],
    tail=[("growth1_3x3", 8)],
)
Files = Callable[..., tuple[Path, Path]]
IMAGE = torch.from_numpy(noise(24, 20)).permute(2, 0, 1)[None].float() / 255


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Writes a checkpoint, of a random network unless given, and its genotype."""

    def write(
        genes: Genes = PLAIN, channels: int = 12, scale: int = 2, adq: bool = True, document: Any = None
    ) -> tuple[Path, Path]:
        checkpoint, genotype = tmp_path / "best.pth.tar", tmp_path / "arch.gen"
        save_plain(
            checkpoint, random_state(genes, channels, scale, adq) if document is None else document, True
        )
        genotype.write_text(str(genes))
        return checkpoint, genotype

    return write


def state_of(adq: bool = True) -> dict[str, Any]:
    return random_state(PLAIN, 12, 2, adq)


def invoke(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(each) for each in arguments])


def run(network: Network, x: Tensor) -> Tensor:
    with torch.no_grad():
        y: Tensor = network(x)
    return y


# The same numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["seed1_c12_b2_adq", "seed2_c24_b2_plain", "seed3_c48_b4_adq"])
def test_a_released_network_gives_the_released_output_and_cost(
    name: str, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stem = reference / f"quantnas_{name}"
    found = import_checkpoint(stem.with_suffix(".pth.tar"), stem.with_suffix(".gen"))
    vectors, counted = np.load(stem.with_suffix(".npz")), json.loads(stem.with_suffix(".json").read_text())
    differences = []
    for enabled in (
        True,
        False,
    ):  # oneDNN adds in an order of the processor's: one sum lies at a rounding tie
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", enabled)
        y = run(found.network, torch.from_numpy(vectors["x"])).numpy()
        differences.append(np.abs(y - vectors["y"]).max())
    assert min(differences) < 1e-6
    cost = network_cost(found.network.layers, *counted["input"][2:])
    assert (cost.macs, cost.bitops) == (counted["macs"], counted["bitops"])


@pytest.mark.parametrize("adq", [True, False])
@pytest.mark.parametrize(
    ("genes", "channels", "scale"),
    [(VARIED, 12, 3), (PLAIN, 15, 2), (PLAIN, 12, 4), (FLOAT, 12, 2), (HALF_FLOAT, 24, 3)],
)
def test_other_operations_and_sizes_give_the_same_output_too(
    files: Files, genes: Genes, channels: int, scale: int, adq: bool
) -> None:
    found = import_checkpoint(*files(genes, channels, scale, adq))
    expected = output(random_state(genes, channels, scale, adq), genes, IMAGE)
    assert expected.std() > 0.1
    torch.testing.assert_close(run(found.network, IMAGE), expected, atol=1e-6, rtol=0)
    a = found.architecture
    assert (a.channels, a.blocks, a.scale) == (channels, len(genes.body), scale)
    assert (a.normalization, a.arithmetic, a.residual_bits) == ("adq" if adq else "none", "paper", None)


def test_an_operation_is_named_by_the_widths_that_its_tensors_have(files: Files) -> None:
    layers = import_checkpoint(*files(VARIED)).architecture.layers
    assert {slot: choice.op for slot, choice in layers.items()} == {
        "body.0.distill_0": "conv_5x1_1x5",  # 12 -> 12 -> 6
        "body.0.distill_1": "growth2_1x1",
        "body.0.distill_2": "simple_1x1_grouped_3",
        "body.0.refine_0": "decenc_3x3_2",  # three convolutions
        "body.0.refine_1": "conv_3x1_1x3",
        "body.0.refine_2": "simple_3x3_grouped_full",
        "body.0.refine_3": "simple_3x3",
        "upsample": "simple_3x3",
        "tail.0": "growth1_3x3",  # 3 -> 12 -> 3
    }


def test_a_training_checkpoint_with_counters_and_unused_norms_is_the_same(files: Files) -> None:
    state = state_of()
    counters = {name.replace(".weight", ".flops"): torch.tensor(1.0) for name in state if ".conv." in name}
    unused = {"adn_one.phi.bias": torch.zeros(1), "adn_two.bn.weight": torch.ones(3)}
    training = {"epoch": 3, "state_dict": state | counters | unused}
    first = import_checkpoint(*files())
    second = import_checkpoint(*files(document=training))
    assert torch.equal(run(first.network, IMAGE), run(second.network, IMAGE))


def test_a_batch_norm_of_the_paper_costs_no_macs_and_a_convolution_has_no_bias(files: Files) -> None:
    rows = {row.name: row for row in network_cost(import_checkpoint(*files()).network.layers, 24, 20).layers}
    assert (rows["body.0.norm"].macs, rows["body.0.norm"].parameters) == (0, 24)
    assert rows["fusion"].parameters == 12 * 24


# Refused -------------------------------------------------------------------------------------------------


def changed(name: str, value: Any) -> dict[str, Any]:
    return state_of() | {name: value}


@pytest.mark.parametrize(
    ("document", "advice"),
    [
        ([1], "best.pth.tar holds no state_dict: use a checkpoint of QuantNAS' released code"),
        ({"state_dict": 3}, "best.pth.tar holds no state_dict"),
        ({}, r"has no convolution c2\.net\.0"),
        (changed("c2.net.0.conv.weight", torch.ones(3)), r"has no convolution c2\.net\.0"),
        (changed("x.weight", torch.ones(3)), "has an unknown tensor 'x.weight'"),
        (changed("tail.0.net.1.conv.weight", torch.ones(3, 3, 1, 1)), "has an unknown tensor 'tail.0.net.1"),
        (changed("c.net.0.conv.weight", torch.ones(12, 12, 1, 1)),
         r"c\.net\.0\.conv\.weight is \(12, 12, 1, 1\) .* needs \(12, 24, 1, 1\)"),
        (changed("c.net.0.quan_w_fn.s", torch.zeros(12, 1, 1, 1)), "quan_w_fn.s has a step of zero"),
        (changed("c.net.0.quan_w_fn.s", torch.full((12, 1, 1, 1), torch.nan)), "holds NaN or infinite"),
        ({name: value for name, value in state_of().items() if name != "body.1.adn.phi.bias"},
         "lacks tensor 'body.1.adn.phi.bias'"),
        (changed("upsample.0.0.net.1.conv.weight", torch.ones(11, 12, 1, 1)), "11 channels .* fit no scale"),
        (changed("upsample.0.0.net.1.conv.weight", torch.ones(75, 12, 1, 1)), "scale is 5, not one of 2, 3"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_does_not_fit_is_refused_by_tensor(
    files: Files, document: Any, advice: str
) -> None:
    with pytest.raises((CheckpointError, ArchitectureError), match=advice):
        import_checkpoint(*files(document=document))


@pytest.mark.parametrize(
    ("genes", "advice"),
    [
        (replace(PLAIN, tail=[("simple_1x1", 7)]),
         "layer 'tail.0' has 7 bits, for which the paper has no HWGQ step: use 2, 3, 4, 8 or 32"),
        (replace(PLAIN, tail=[("simple_1x1", 9)]), "layers\\.tail\\.0\\.bits is 9, not one of"),
        (replace(PLAIN, tail=[("skip_connect", 8)]), "layer 'tail.0': unknown operation 'skip_connect'"),
        (replace(PLAIN, tail=[("simple_3x3", 8)]), r"tail\.0\.net\.0\.conv\.weight is \(3, 3, 1, 1\)"),
        (replace(PLAIN, body=PLAIN.body[:1], skip=PLAIN.skip[:1]), r"c\.net\.0\.conv\.weight|body\.1"),
    ],
)  # fmt: skip
def test_a_genotype_of_another_network_is_refused(files: Files, genes: Genes, advice: str) -> None:
    with pytest.raises((CheckpointError, ArchitectureError), match=advice):
        import_checkpoint(*files(genes, document=state_of()))


def test_a_truncated_checkpoint_is_refused(files: Files) -> None:
    checkpoint, genotype = files()
    checkpoint.write_bytes(checkpoint.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="is truncated or no PyTorch checkpoint: write it again with Q"):
        import_checkpoint(checkpoint, genotype)


@pytest.mark.parametrize(
    "architecture",
    [
        replace(find_architecture("basic-w8"), residual_bits=None),
        find_architecture("rfdn-adq-w48-example"),
        *(
            replace(find_architecture("rfdn-adq-w48-example"), residual_bits=None, **changes)
            for changes in ({"levels": "lloyd"}, {"normalization": "bn"}, {"normalization": "adadm"})
        ),
    ],
)
def test_the_papers_arithmetic_is_for_what_the_released_code_builds(architecture: Architecture) -> None:
    lower(architecture)
    with pytest.raises(ArchitectureError, match="arithmetic paper is for rfdn_space with residual_bits null"):
        lower(replace(architecture, arithmetic="paper"))


# What can be done with it --------------------------------------------------------------------------------


def test_found_pt_says_whose_arithmetic_it_has(files: Files, tmp_path: Path) -> None:
    found = import_checkpoint(*files())
    save_found(tmp_path / "found.pt", found.architecture, found.network, found.training)
    loaded = load_found(tmp_path / "found.pt")
    assert loaded.architecture == found.architecture
    assert loaded.training["imported"] == "best.pth.tar"
    assert torch.equal(run(loaded.network, IMAGE), run(found.network, IMAGE))
    assert "arithmetic" not in find_architecture("rfdn-w4").to_document()  # as files always were


def test_pixels_are_read_and_written_as_their_255th_part(files: Files) -> None:
    network = import_checkpoint(*files()).network
    assert to_network(np.full((1, 1, 1, 3), 255, np.uint8), "paper").tolist() == [[[[1.0]]] * 3]
    grey = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.1]).view(1, 1, 1, 5)
    assert to_pixels(grey, "paper").ravel().tolist() == [0, 0, 128, 255, 255]  # 127.5 is a tie: even
    pixels = noise(24, 20)
    expected = (run(network, IMAGE)[0] * 255).round().clamp(0, 255).permute(1, 2, 0)
    assert np.array_equal(upscaler(network)(pixels), expected.numpy())


def test_a_negative_step_learns_on_and_stays_negative(files: Files) -> None:
    network = import_checkpoint(*files()).network.train()
    network(IMAGE).square().mean().backward()
    convolutions = [m for m in network.modules() if isinstance(m, FreeConvolution)]
    assert all(float(m.weight_scale.detach()[0]) < 0 for m in convolutions)
    assert all(
        m.weight_scale.grad is not None and bool(m.weight_scale.grad.isfinite().all()) for m in convolutions
    )
    assert any(float(m.weight_scale.grad.abs().sum()) > 0 for m in convolutions)  # type: ignore[union-attr]
    assert not any(name.endswith(".step") for name in network.state_dict())  # activations have constants


def in_float(found: Found, deployable: bool) -> Network:
    """At 32 bits the imported network or its twin, with weights inside the range of their scales."""
    a = found.architecture.with_bits(32)
    twin = Network(lower(a.deployable()))
    state = short_state(found.network, twin)
    network = (twin if deployable else Network(lower(a))).eval()
    own = found.network.state_dict()
    weights = {name for name in own if f"{name}_scale" in own}
    chosen = state if deployable else own | {name: state[name] for name in weights}
    network.load_state_dict({name: chosen[name] for name in network.state_dict()})
    return network


@pytest.mark.parametrize(("adq", "gates"), [(True, 1e-5), (False, 2e-3)])
def test_before_rounding_the_deployable_twin_computes_the_same(files: Files, adq: bool, gates: float) -> None:
    found = import_checkpoint(*files(adq=adq, document=state_of(adq)))
    ours, twin = in_float(found, deployable=False), in_float(found, deployable=True)
    twin.training = True  # factors as they are, of this image, but norms as they were seen
    for name, module in twin.named_modules():
        if name.endswith("deviation"):
            module.train()
    expected = run(ours, IMAGE) * 255
    torch.testing.assert_close(run(twin, IMAGE * 255 / 256) * 256, expected, atol=255 * gates, rtol=gates)


def test_a_factor_becomes_a_power_that_touches_it_at_the_deviation_seen(files: Files) -> None:
    state = state_of()
    for part, value in (("running_mean", [0.0, 0.6]), ("running_var", [0.07])):
        state[f"body.0.adn.bn.{part}"] = torch.tensor(value).repeat(12 // len(value))
    found = import_checkpoint(*files(document=state))
    power_form = replace(found.architecture.deployable(), normalization="adq")
    twin = short_state(found.network, Network(lower(power_form)))
    seen = (0.07 + 0.3**2) ** 0.5  # within channels and between them: 0.4
    factor = 1.4 * seen + 0.01
    assert twin["body.0.deviation.running_factor"] == pytest.approx(factor * 255 / 256)
    power, bias = float(twin["body.0.deviation.weight"]), float(twin["body.0.deviation.bias"])
    assert np.exp(power * np.log(seen * 255 / 256) + bias) == pytest.approx(factor * 255 / 256)
    assert power == pytest.approx(1.4 * seen / factor)  # the slope of the line there, in logarithms


def test_a_factor_below_zero_has_no_deployable_twin(files: Files) -> None:
    found = import_checkpoint(*files(document=changed("body.1.adn.phi.bias", torch.tensor([-9.0]))))
    with pytest.raises(CheckpointError, match=r"body\.1\.deviation multiplies by -7\.\d+ on average"):
        in_float(found, deployable=True)


def test_the_same_network_goes_on_with_its_own_steps(files: Files, tmp_path: Path) -> None:
    found = import_checkpoint(*files())
    save_found(tmp_path / "found.pt", found.architecture, found.network, {})
    again = Network(lower(found.architecture))
    warm_start(again, tmp_path / "found.pt")
    assert torch.equal(run(again.eval(), IMAGE), run(found.network, IMAGE))


def test_short_scales_do_not_become_the_papers(files: Files, tmp_path: Path) -> None:
    architecture = import_checkpoint(*files()).architecture
    short = build(architecture.deployable())
    save_found(tmp_path / "short.pt", short.architecture, short.network, {})
    with pytest.raises(
        CheckpointError, match=r"short\.pt has short scales: warm-start a network of arithmetic"
    ):
        warm_start(Network(lower(architecture)), tmp_path / "short.pt")


def test_from_the_checkpoint_to_an_integer_model(files: Files, tmp_path: Path, photographs: Path) -> None:
    checkpoint, genotype = files()
    found, arch, trained = (tmp_path / name for name in ("found.pt", "arch.json", "trained.pt"))
    result = invoke(main, checkpoint, "--genotype", genotype, "-o", found, "--deployable", arch)
    assert result.exit_code == 0
    assert f"wrote {found}: 12 channels, 2 blocks, x2, adq" in result.output
    refused = invoke(export, found)
    assert refused.exit_code == 2
    assert "train the architecture that `qnas-import --deployable` writes" in refused.output
    twin: Architecture = from_json(arch.read_text(), "arch.json")
    assert (twin.arithmetic, twin.residual_bits) == ("short", 8)
    for arguments in ([arch, "-o", trained], [paper_json(found), "-o", tmp_path / "tuned.pt"]):
        options = ["--data", photographs, "--warm-start", found, "--steps", 2, "--batch", 2, "--patch", 16]
        assert invoke(train, *arguments, *options, "--threads", 1).exit_code == 0
    assert invoke(export, trained, "--no-parity").exit_code == 0
    assert trained.with_suffix(".onnx").is_file()


def paper_json(found: Path) -> Path:
    path = found.with_suffix(".json")
    path.write_text(load_found(found).architecture.to_json())
    return path


def test_existing_files_are_kept_without_force(files: Files, tmp_path: Path) -> None:
    checkpoint, genotype = files()
    arch = tmp_path / "arch.json"
    arch.write_text("mine")
    options = [checkpoint, "--genotype", genotype, "-o", tmp_path / "found.pt", "--deployable", arch]
    result = invoke(main, *options)
    assert (result.exit_code, arch.read_text()) == (2, "mine")
    assert not (tmp_path / "found.pt").exists()
    assert invoke(main, *options, "--force").exit_code == 0
