"""A network that was trained with float residuals gets 8-bit ones whose scales images decide."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from qnas.errors import ImageError
from qnas.export.cli import main
from qnas.export.residuals import with_residual_grids
from qnas.images.files import write_png
from qnas.images.quality import psnr_y
from qnas.integer.nodes import Add
from qnas.network.architecture import Architecture
from qnas.network.lowering import uniform_layers
from qnas.testing.random_networks import build, noise, random_architecture
from qnas.torch.checkpoint import Found, load_found, save_found
from qnas.torch.inference import upscaler

IMAGES = [noise(20, 24, seed) for seed in range(3)]
SRRESNET = Architecture("srresnet", 8, 2, 4, {}, residual_bits=None)
RFDN = replace(SRRESNET, space="rfdn", channels=12)
SMALL: dict[str, Architecture] = {
    "srresnet": replace(SRRESNET, layers=uniform_layers(SRRESNET, "", 8)),
    "rfdn": replace(RFDN, layers=uniform_layers(RFDN, "", 8)),
    "basic": replace(random_architecture("basic", 0), residual_bits=None),
    "basic with ADQ": replace(random_architecture("basic", 1), residual_bits=None),
    "rfdn_space": replace(random_architecture("rfdn_space", 3), residual_bits=None),
}


def trained(name: str) -> Found:
    """With float residuals; where a correction is added to the upscaled image, that is in the range of images
    and the correction small, as training makes them."""
    found = build(SMALL[name])
    convolutions = [layer.name for layer in found.network.layers if layer.op == "conv"]
    last = [name for name in convolutions if name.startswith("upsample")][-1]
    if any(name.startswith("tail") for name in convolutions):
        seen: list[torch.Tensor] = []
        hook = found.network.module(last).register_forward_hook(lambda *values: seen.append(values[2]))
        upscaler(found.network)(IMAGES[0])
        hook.remove()
        factor = 0.15 / float(seen[0].std())
        with torch.no_grad():
            found.network.module(last).shrink(factor)
            found.network.module(last).bias.mul_(factor).add_(0.5 - float(seen[0].mean()) * factor)
            for name in convolutions:
                if name.startswith("tail"):
                    found.network.module(name).shrink(0.3)
                    found.network.module(name).bias.mul_(0.1)
    return found


@pytest.mark.parametrize("name", SMALL)
def test_the_twin_is_near_the_network_that_was_trained(name: str) -> None:
    found = trained(name)
    twin = with_residual_grids(found, IMAGES)
    assert twin.architecture.residual_bits == 8
    image = noise(22, 18, seed=9)
    wanted = upscaler(found.network)(image)
    assert wanted.std() > 10
    assert psnr_y(upscaler(twin.network)(image), wanted, 0) > 30


def test_what_was_trained_stays_and_only_new_scales_are_fitted() -> None:
    found = trained("basic")
    before = {name: value.clone() for name, value in found.network.state_dict().items()}
    twin = with_residual_grids(found, IMAGES)
    state = twin.network.state_dict()
    shared = before.keys() & state.keys()
    assert all(torch.equal(before[name], state[name]) for name in shared)
    assert all(torch.equal(before[name], value) for name, value in found.network.state_dict().items())
    new = state.keys() - before.keys()
    assert new
    assert all(name.endswith(".grid.step") for name in new)


def test_a_scale_covers_all_tensors_that_share_it() -> None:
    """A stream that grows: the step of all is that of the last, not that of the first."""
    found = trained("srresnet")
    with torch.no_grad():
        found.network.module("body.1.conv_1").shrink(30)
    steps = [
        float(with_residual_grids(each, IMAGES).network.module("conv_first.grid").scale().detach())
        for each in (trained("srresnet"), found)
    ]
    assert steps[1] > steps[0]


def test_without_an_image_there_is_no_scale() -> None:
    with pytest.raises(ImageError, match="--images"):
        with_residual_grids(trained("basic"), [])


# The command ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, file in (("basic", "found.pt"), ("basic with ADQ", "adq.pt")):
        found = trained(name)
        save_found(tmp_path / file, found.architecture, found.network, {})
    (tmp_path / "images").mkdir()
    for seed in range(2):
        write_png(tmp_path / "images" / f"{seed}.png", noise(96, 88, seed))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("file", ["found.pt", "adq.pt"])
def test_images_make_a_network_of_float_residuals_exportable_and_exact(folder: Path, file: str) -> None:
    result = export(file, "--images", "images")
    assert result.exit_code == 0, result.output
    report = json.loads(Path(file).with_suffix(".parity.json").read_text())
    for runtime in report["files"][0]["runtimes"]:
        if runtime["gated"]:
            assert [each["differing"] for each in runtime["against"].values()] == [0, 0]
    prices = [note for note in report["notes"] if "residuals cost" in note]
    assert len(prices) == 1
    assert any("ADQ" in note for note in report["notes"]) == (file == "adq.pt")


def test_without_images_the_error_says_what_to_do(folder: Path) -> None:
    result = export("found.pt")
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "--images IMAGES" in result.output


def test_images_freeze_the_deviations_that_they_have(folder: Path) -> None:
    from qnas.export.options import Options
    from qnas.export.sources.found import read_found

    options = Options(("onnx-qdq",), images=Path("images"))
    trained = load_found(Path("adq.pt")).network.deviations()
    frozen = read_found(Path("adq.pt"), options).found
    pairs = list(zip(trained, frozen.network.deviations(), strict=True))
    assert pairs
    assert any(float(a.running_factor) != float(b.running_factor) for a, b in pairs)
    per_image = read_found(Path("adq.pt"), replace(options, adq="per-image"))
    assert per_image.integer is not None
    assert any(isinstance(node, Add) for node in per_image.integer.nodes)
    assert np.isfinite(per_image.integer.nodes[1].output.scale)
