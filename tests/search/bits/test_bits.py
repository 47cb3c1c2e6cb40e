"""`qnas-search bits`: mixed calibrations and architectures under a budget, as a user gets them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from qnas.calibration.calibrate import calibrate, quantized_model
from qnas.calibration.document import read_calibration, write_calibration
from qnas.cost.network_cost import network_cost
from qnas.export.options import Options
from qnas.export.run import export
from qnas.network.architecture import Space, read_architecture
from qnas.network.lowering import lower
from qnas.one_writer import one_writer
from qnas.onnx.cost import model_cost
from qnas.search.bits_cli import main
from qnas.testing.random_networks import build, random_architecture, random_found
from qnas.testing.small_calibrations import SETTINGS, make_network, make_photographs
from qnas.testing.sr_modules import abpn_like, xlsr_like
from qnas.testing.sr_modules import export as export_module
from qnas.torch.checkpoint import save_found

PAIRS = {"8": (8, 8), "4/8": (4, 8), "4": (4, 4)}


def bits(model: Path | str, images: Path, *words: str) -> Result:
    arguments = [str(model), str(images), "--threads", "1", *words]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bits")
    make_photographs(made / "photographs")
    make_network(made)
    calibration = calibrate(made / "espcn.onnx", [made / "photographs"], SETTINGS)
    write_calibration(calibration, made / "espcn.json")
    return made


@pytest.fixture(scope="module")
def done(folder: Path) -> Result:
    """Two budgets of a calibrated network."""
    return bits(
        folder / "espcn.onnx", folder / "photographs", "--calibration", str(folder / "espcn.json"),
        "--budget", "75%", "--budget", "40%", "--json", str(folder / "bits.json"),
    )  # fmt: skip


def report(folder: Path, done: Result) -> Any:
    assert done.exit_code == 0, done.output
    return json.loads((folder / "bits.json").read_text())


# Float networks --------------------------------------------------------------------------------------------


def test_each_budget_has_a_calibration_whose_model_costs_what_is_said(folder: Path, done: Result) -> None:
    found = report(folder, done)
    assert [mix["file"] for mix in found["mixes"]] == [
        "espcn.75pct.mixed.calibration.json",
        "espcn.40pct.mixed.calibration.json",
    ]
    for mix, share in zip(found["mixes"], (0.75, 0.4), strict=True):
        calibration = read_calibration(folder / mix["file"])
        model = quantized_model(folder / "espcn.onnx", calibration)
        cost = model_cost(model, {model.graph.input[0].name: (1, 3, 32, 32)})
        assert cost.bitops == mix["cost"] <= share * found["eight_bits"]["cost"]
        found_bits = {row.name: (row.weight_bits, row.activation_bits) for row in cost.layers}
        assert found_bits == {name: PAIRS[bits] for name, bits in mix["bits"].items()}
        assert calibration.fidelity == mix["measured"] > 30
    assert "8" in found["mixes"][0]["bits"].values()
    assert "4" in found["mixes"][1]["bits"].values()


def test_weights_alone_get_4_bits_where_inputs_are_to_have_8(folder: Path, tmp_path: Path) -> None:
    words = ("--calibration", str(folder / "espcn.json"), "--activation-bits", "8", "--budget", "50%")
    done = bits(folder / "espcn.onnx", folder / "photographs", *words, "-o", str(tmp_path / "m.json"))
    assert done.exit_code == 0, done.output
    options = read_calibration(tmp_path / "m.json").options
    assert len(options.int4_layers) == 3
    assert options.int4_inputs == ()


@pytest.mark.parametrize("network", [abpn_like, xlsr_like])
def test_a_mixed_network_is_exported_exactly_to_both_formats(network: Any, tmp_path: Path) -> None:
    photographs = make_photographs(tmp_path / "photographs")
    model = export_module(network(True), tmp_path / "net.onnx")
    words = ("--budget", "45%", "--patch", "24", "--count", "16", "-o", str(tmp_path / "mixed.json"))
    assert (done := bits(model, photographs, *words)).exit_code == 0, done.output
    options = Options(("onnx-qdq", "tflite"), calibration=tmp_path / "mixed.json", check=photographs)
    exported = export(model, options)
    assert exported.report is not None
    assert exported.report.passed
    rows = model_cost(exported.files[0], {"image": (1, 3, 32, 32)}).layers
    assert {row.activation_bits for row in rows} == {4, 8}


def test_calibrating_first_and_giving_the_calibration_on_two_threads_are_the_same_to_the_byte(
    folder: Path, tmp_path: Path
) -> None:
    model, photographs = folder / "espcn.onnx", folder / "photographs"
    settings = ("--patch", "24", "--count", "40")
    assert bits(model, photographs, *settings, "-o", str(tmp_path / "a.json")).exit_code == 0
    given = ("--calibration", str(folder / "espcn.json"), "-o", str(tmp_path / "b.json"), "--threads", "2")
    assert bits(model, photographs, *given).exit_code == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_bytes_of_weights_are_a_budget_too(folder: Path, tmp_path: Path) -> None:
    done = bits(
        folder / "espcn.onnx", folder / "photographs", "--calibration", str(folder / "espcn.json"),
        "--unit", "bytes", "--budget", "3k", "-o", str(tmp_path / "m.json"),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    model = quantized_model(folder / "espcn.onnx", read_calibration(tmp_path / "m.json"))
    assert model_cost(model, {model.graph.input[0].name: (1, 3, 32, 32)}).weight_bytes <= 3000


# Architectures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("space", "seed"), [("basic", 1), ("rfdn_space", 2)])
def test_an_architecture_gets_bits_within_its_budget_by_the_counter_of_networks(
    space: Space, seed: int, tmp_path: Path
) -> None:
    photographs = make_photographs(tmp_path / "photographs")
    found = build(replace(random_architecture(space, seed), scale=2).with_bits(32))
    save_found(tmp_path / "found.pt", found.architecture, found.network, {})
    words = ("--budget", "60%", "--patch", "20", "-o", str(tmp_path / "arch.json"), "--image", "24x40")
    done = bits(tmp_path / "found.pt", photographs, *words, "--json", str(tmp_path / "report.json"))
    assert done.exit_code == 0, done.output
    mixed = read_architecture(tmp_path / "arch.json")
    mix = json.loads((tmp_path / "report.json").read_text())["mixes"][0]
    cost = network_cost(lower(mixed), 24, 40).bitops
    eight = network_cost(lower(found.architecture.with_bits(8)), 24, 40).bitops
    assert cost == mix["cost"] <= 0.6 * eight
    assert {slot: str(choice.bits) for slot, choice in mixed.layers.items()} == mix["bits"]
    assert {choice.bits for choice in mixed.layers.values()} == {4, 8}
    assert {slot: choice.op for slot, choice in mixed.layers.items()} == {
        slot: choice.op for slot, choice in found.architecture.layers.items()
    }


def test_a_patch_that_is_too_small_for_a_pooling_is_refused(tmp_path: Path, photographs: Path) -> None:
    found = random_found("rfdn-w8")
    save_found(tmp_path / "found.pt", found.architecture, found.network, {})
    done = bits(tmp_path / "found.pt", photographs, "--patch", "8")
    assert done.exit_code == 2
    assert "--patch 8 is too small for the pooling of rfdn: use a larger one" in done.output


def test_measured_milliseconds_decide_where_4_bits_are_slower(tmp_path: Path, photographs: Path) -> None:
    found = random_found("espcn-w32")
    save_found(tmp_path / "found.pt", found.architecture, found.network, {})
    channels, times = ((3, 64), (64, 32), (32, 48)), ((1, 2), (4, 5), (3, 2))  # ms of 4 and of 8 bits
    operations = [
        {
            "op": choice.op, "in_channels": read, "out_channels": written, "bits": width, "height": 32,
            "width": 32, "ms": ms,
        }
        for choice, (read, written), both in zip(
            found.architecture.layers.values(), channels, times, strict=True
        )
        for width, ms in zip((4, 8), both, strict=True)
    ]  # fmt: skip
    document = {"format": "qnas-latency-model", "version": 1, "operations": operations}
    (tmp_path / "table.json").write_text(json.dumps(document))
    words = ("--unit", "ms", "--latency-table", str(tmp_path / "table.json"), "--patch", "8")
    done = bits(tmp_path / "found.pt", photographs, *words, "--budget", "7.5", "-o", str(tmp_path / "a.json"))
    assert done.exit_code == 0, done.output
    assert [c.bits for c in read_architecture(tmp_path / "a.json").layers.values()] == [4, 4, 8]
    refused = bits(tmp_path / "found.pt", photographs, *words, "--budget", "6.5", "--force")
    assert refused.exit_code == 2
    assert "below the 7 ms" in refused.output


# What is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "words", "said"),
    [
        ("espcn.onnx", ["--budget", "24%"], "--budget 24% is below the"),
        ("espcn.onnx", ["--budget", "0.5"], "--budget 0.5 is below the"),
        ("espcn.onnx", ["--budget", "150%"], "a share of 8 bits from 0% to 100%"),
        ("espcn.onnx", ["--budget", "half"], "--budget half: write a number"),
        ("espcn.onnx", ["--budget", "60%", "--budget", "60%"], "--budget 60% is given twice"),
        ("espcn.onnx", ["--hr"], "--calibration says how it was made: leave --hr"),
        ("espcn.onnx", ["--unit", "ms"], "runtimes take as long for weights of 4 bits"),
        ("espcn.onnx", ["--weights", "found.pt"], "is a float network: leave --weights out"),
        ("espcn-w8", [], "espcn-w8 is an architecture: leave --calibration out"),
        ("nothing.onnx", [], "nothing.onnx"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(
    folder: Path, tmp_path: Path, model: str, words: list[str], said: str
) -> None:
    name = str(folder / model) if model.endswith(".onnx") else model
    given = ("--calibration", str(folder / "espcn.json"), "-o", str(tmp_path / "m.json"))
    done = bits(name, folder / "photographs", *given, *words)
    assert done.exit_code == 2
    assert said in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_output_that_another_process_writes_is_left_alone(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.json"
    with one_writer(output):
        words = ("--calibration", str(folder / "espcn.json"), "-o", str(output))
        done = bits(folder / "espcn.onnx", folder / "photographs", *words)
    assert done.exit_code == 2
    assert "m.json" in done.output
    assert not output.exists()


def test_an_architecture_without_weights_says_how_to_get_some(folder: Path) -> None:
    done = bits("espcn-w8", folder / "photographs")
    assert done.exit_code == 2
    assert (
        "espcn-w8 is an architecture without weights: train it (qnas-train espcn-w8 --bits 32)" in done.output
    )


def test_a_calibration_of_4_bits_is_no_start(folder: Path, done: Result, tmp_path: Path) -> None:
    assert done.exit_code == 0
    mixed = folder / "espcn.40pct.mixed.calibration.json"
    words = ("--calibration", str(mixed), "-o", str(tmp_path / "m.json"))
    again = bits(folder / "espcn.onnx", folder / "photographs", *words)
    assert again.exit_code == 2
    assert "has weights of 4 bits already: name one that has 8 in all" in again.output


def test_the_calibration_of_another_network_is_refused(folder: Path, tmp_path: Path) -> None:
    other = export_module(abpn_like(True), tmp_path / "other.onnx")
    words = ("--calibration", str(folder / "espcn.json"), "-o", str(tmp_path / "m.json"))
    done = bits(other, folder / "photographs", *words)
    assert done.exit_code == 2
    assert "the calibration is that of espcn.onnx" in done.output
