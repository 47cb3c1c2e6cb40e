"""`qnas-bench cost`: what it counts, shows and writes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result

from qnas.errors import ModelError
from qnas.export.formats.table import file_kind
from qnas.export.integers import integer_network
from qnas.export.metadata import architecture_properties, file_properties
from qnas.export.model import build_float32, build_qdq
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_tflite.writer import write_tflite
from qnas.network.architecture import find_architecture
from qnas.network.lowering import lower
from qnas.runtime_bench.cost_cli import main
from qnas.runtime_bench.model_cost import architecture_cost
from qnas.runtimes.inputs import Input
from qnas.testing.activations import activation_elements
from qnas.testing.random_networks import random_found
from qnas.testing.text_models import FLOAT_CONV, INTEGER_CONV, text_model
from qnas.torch.checkpoint import Found
from qnas.torch.network import Network


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def cell(output: str, label: str) -> str:
    """The first cell behind the row's label."""
    (found,) = re.findall(rf"│ {re.escape(label)} +│ +(\S+) +│", output)
    return str(found)


@pytest.fixture
def espcn(tmp_path: Path) -> tuple[Path, Path]:
    """ESPCN at 8 bits, as ONNX and as TFLite, with the metadata that qnas-export writes."""
    found, source = random_found("espcn-w8"), tmp_path / "found.pt"
    source.write_bytes(b"stands for the checkpoint")
    known = file_properties(source, 4, {8}, integer=True) | architecture_properties(
        found.architecture, found.network.layers
    )
    model, path = build_qdq(found, TARGETS["openvino"]), tmp_path / "espcn.onnx"
    onnx.helper.set_model_props(model, known)
    onnx.save(model, path)
    network = fitted(integer_network(found), TARGETS["litert"])
    lite = tmp_path / "espcn.tflite"
    lite.write_bytes(write_tflite(network, 48, 48, resizable=True, properties=known).data)
    return path, lite


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_paper_convention_reproduces_the_papers_table_1(espcn: tuple[Path, Path], suffix: str) -> None:
    """QuantNAS, table 1: ESPCN at 8 bits and 32x32 is "2.3 G": 37 945 344 * 64 of 2^30."""
    (path,) = (each for each in espcn if each.suffix == suffix)
    result = run(path, "--shape", "32x32", "--convention", "paper", "--totals")
    assert (result.exit_code, result.stderr) == (0, "")
    assert cell(result.output, "BitOps (G = 2^30)") == "2.262"
    assert cell(result.output, "executed BitOps (G = 2^30)") == "2.262"
    assert cell(result.output, "BitOps of the architecture, one image (G = 2^30)") == "2.262"


def test_decimal_convention_is_the_default(espcn: tuple[Path, Path]) -> None:
    output = run(espcn[0], "--shape", "32x32", "--totals").output
    assert cell(output, "BitOps (G = 10^9)") == "2.429"  # 37 945 344 * 64
    assert cell(output, "MACs (G = 10^9)") == "0.03795"


@pytest.mark.parametrize(
    ("name", "functional", "shown", "published"),
    [("rfdn", "none", "27.03", 27.10), ("srresnet", ".conv_1.input", "166.2", 166.36)],
)
def test_published_macs_at_256x256_are_those_of_the_exported_file(
    name: str, functional: str, shown: str, published: float, tmp_path: Path
) -> None:
    """AIM 2020 and the paper's table 4, of 10^9; docs/decisions/0005 says what they count besides MACs."""
    architecture = find_architecture(f"{name}-w32")
    path = tmp_path / "model.onnx"
    onnx.save(build_float32(Found(architecture, Network(lower(architecture)).eval(), {})), path)
    assert cell(run(path, "--shape", "256x256", "--totals").output, "MACs (G = 10^9)") == shown
    macs = file_kind(path).cost(path, {"image": (1, 3, 256, 256)}).macs
    assert round((macs + activation_elements(architecture, functional)) / 1e9, 2) == published


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path]:
    """A convolution of 12 channels and a shuffle, float and integer."""
    paths = tmp_path / "float.onnx", tmp_path / "integer.onnx"
    for path, text in zip(paths, (FLOAT_CONV, INTEGER_CONV), strict=True):
        onnx.save(text_model(text), path)
    return paths


def test_every_layer_has_its_row(small: tuple[Path, Path]) -> None:
    output = run(small[1], "--shape", "4x4").output
    (row,) = (line for line in output.splitlines() if "│ Conv " in line)
    cells = [each.strip() for each in row.strip("│ ").split("│")]
    # 12*4*4 outputs of 27 MACs each; 48 bytes in, 192 out
    assert cells == ["c", "Conv", "1x12x4x4", "8/8", "5.184e-06", "0.0003318", "0.0003318", "324", "240"]
    assert "│ Conv " not in run(small[1], "--shape", "4x4", "--totals").output


def test_models_stand_side_by_side_in_the_totals(small: tuple[Path, Path]) -> None:
    lines = run(*small, "--shape", "4x4", "--totals").output.splitlines()
    (header,) = (line for line in lines if "float.onnx" in line)
    assert header.index("float.onnx") < header.index("integer.onnx")
    (peak,) = (line for line in lines if "peak activations" in line)
    assert re.findall(r"[\d,]+", peak) == ["1,536", "384"]
    assert not any("architecture" in line for line in lines)


def test_json_has_whole_numbers_of_every_node(small: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    assert run(small[1], "--shape", "4x4", "--json", path).exit_code == 0
    document: dict[str, Any] = json.loads(path.read_text())
    assert (document["format"], document["version"]) == ("qnas-cost", 1)
    (model,) = document["models"]
    assert (model["inputs"], model["architecture"]) == ({"image": [1, 3, 4, 4]}, None)
    macs = 12 * 16 * 27
    sums = {name: value for name, value in model["cost"].items() if name != "nodes"}
    assert sums == {
        "macs": macs, "bitops": macs * 64, "executed_bitops": macs * 64, "parameters": 324,
        "weight_bytes": 324, "activation_bytes": 240, "peak_activation_bytes": 384, "uncovered": [],
    }  # fmt: skip
    assert model["cost"]["nodes"] == [
        {
            "name": "c", "op": "Conv", "macs": macs, "weight_bits": 8, "activation_bits": 8,
            "executed_weight_bits": 8, "executed_activation_bits": 8, "bitops": macs * 64,
            "executed_bitops": macs * 64, "parameters": 324, "weight_bytes": 324, "activation_bytes": 240,
            "output_shape": [1, 12, 4, 4],
        }
    ]  # fmt: skip


def test_architecture_of_a_file_is_counted_for_one_image(espcn: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    assert run(espcn[0], "--shape", "2x3x32x32", "--json", path).exit_code == 0
    (model,) = json.loads(path.read_text())["models"]
    assert model["cost"]["macs"] == 2 * 37_945_344
    assert model["architecture"] == {"macs": 37_945_344, "bitops": 37_945_344 * 64}


def test_what_nobody_counted_is_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.onnx"
    onnx.save(text_model("net (float[1, 4] x) => (float[] y) <float[4, 4] k> { m = MatMul (x, k) "
                         "y = house.Something (m) }"), path)  # fmt: skip
    result = run(path)
    assert (result.exit_code, result.stderr) == (0, f"{path}: not counted: house.Something\n")
    assert cell(result.output, "peak activations (bytes)") == "unknown"


def test_metadata_of_somebody_else_is_passed_over(espcn: tuple[Path, Path], tmp_path: Path) -> None:
    model = onnx.load(espcn[0])
    for text in ('{"format": "other"}', "no JSON"):
        onnx.helper.set_model_props(model, {"qnas.architecture": text})
        onnx.save(model, tmp_path / "other.onnx")
        assert architecture_cost(tmp_path / "other.onnx", {"image": (1, 3, 8, 8)}) is None
    lite = tmp_path / "other.tflite"
    lite.write_bytes(espcn[1].read_bytes().replace(b'{"qnas.', b'["qnas.'))  # no JSON any more
    assert architecture_cost(espcn[1], {"image": (1, 8, 8, 3)}) is not None
    assert architecture_cost(lite, {"image": (1, 8, 8, 3)}) is None
    onnx.save(text_model(FLOAT_CONV), tmp_path / "none.onnx")
    assert architecture_cost(tmp_path / "none.onnx", {"image": (1, 3, 8, 8)}) is None


def test_inputs_are_those_that_the_file_declares(espcn: tuple[Path, Path], tmp_path: Path) -> None:
    (image,) = file_kind(espcn[0]).inputs(espcn[0])
    assert image == Input("image", "uint8", ("batch", 3, "height", "width"))
    (image,) = file_kind(espcn[1]).inputs(espcn[1])
    assert image == Input("image", "int8", (1, None, None, 3))
    free = text_model(FLOAT_CONV)
    free.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    onnx.save(free, tmp_path / "free.onnx")
    assert file_kind(tmp_path / "free.onnx").inputs(tmp_path / "free.onnx") == (
        replace(image, dtype="float", dims=(None, 3, "h", "w")),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.onnx"], "missing.onnx is not a file: name an .onnx model"),
        (["missing.tflite"], "missing.tflite cannot be read"),
        (["model.txt"], "model.txt is no .onnx or .tflite file"),
        (["MODEL", "--shape", "1x4x8x8"], "does not fit"),
        (["MODEL", "--shape", "picture:1x3x8x8"], "no model has an input 'picture': there are image"),
        (["MODEL", "--shape", "large"], "--shape large: write sizes as"),
        (["MODEL", "--json", "MODEL"], "would replace what is read"),
        (["MODEL", "--json", "nowhere/cost.json"], "the folder"),
        ([], "Missing argument"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, small: tuple[Path, Path], tmp_path: Path
) -> None:
    names = [str(small[0]) if each == "MODEL" else each for each in arguments]
    result = run(*(str(tmp_path / n) if n.endswith((".json", "c.onnx", "g.tflite")) else n for n in names))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_json_is_replaced_only_when_told(small: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    path.write_text("mine")
    assert "pass --force" in run(small[0], "--json", path).stderr
    assert path.read_text() == "mine"
    assert run(small[0], "--json", path, "--force").exit_code == 0
    assert json.loads(path.read_text())["format"] == "qnas-cost"


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.bin is no \.onnx or \.tflite file"):
        file_kind(tmp_path / "model.bin")
