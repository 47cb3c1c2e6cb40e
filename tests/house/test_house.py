"""The rules of the house that neither ruff, mypy nor a single import-linter contract can hold."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from qnas.testing.places import ROOT

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
CONTRACTS = {contract["id"]: contract for contract in PYPROJECT["tool"]["importlinter"]["contracts"]}
TORCH_FREE = [
    *CONTRACTS["torch-free"]["source_modules"], *CONTRACTS["integers-without-torch"]["source_modules"],
]  # fmt: skip
SOURCES = sorted(
    path
    for folder in ("src", "search", "calibration", "export", "finetuning", "runtime_bench")
    for path in ROOT.glob(f"{folder}/**/*.py")
)


@pytest.mark.parametrize("script", sorted(PROJECT["scripts"]))
def test_every_command_answers_help(script: str) -> None:
    command = [str(Path(sys.executable).parent / script), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"Usage: {script} ")


@pytest.mark.parametrize("script", sorted(PROJECT["scripts"]))
def test_help_is_quick_for_it_imports_nothing_but_click(script: str) -> None:
    program = """
import importlib, sys
before = set(sys.modules)
module, _, name = sys.argv[1].partition(":")
getattr(importlib.import_module(module), name)(["--help"], standalone_mode=False)
print({each.partition(".")[0] for each in set(sys.modules) - before} - sys.stdlib_module_names)
"""
    command = [sys.executable, "-c", program, PROJECT["scripts"][script]]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert ast.literal_eval(output.splitlines()[-1]) == {"click", "qnas"}


@pytest.mark.parametrize("package", TORCH_FREE)
def test_every_module_that_is_said_to_need_no_torch_loads_where_there_is_none(package: str) -> None:
    program = f"""
import importlib, pkgutil, sys
sys.modules["torch"] = None  # an import of it raises ModuleNotFoundError
loaded = importlib.import_module({package!r})
for module in pkgutil.walk_packages(getattr(loaded, "__path__", []), {package + "."!r}):
    importlib.import_module(module.name)
"""
    subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)


def test_extras_are_the_documented_ones_and_all_holds_what_qnas_runs() -> None:
    extras = PROJECT["optional-dependencies"]
    assert sorted(extras) == ["all", "dev", "export", "openvino", "ray", "search", "tflite"]
    assert extras["all"] == ["qnas[export,search,tflite]"]


def test_torch_is_in_no_base_dependency() -> None:
    names = [distribution_name(requirement) for requirement in PROJECT["dependencies"]]
    assert names == ["click", "msgspec", "numpy", "onnx", "onnxruntime", "pillow", "rich"]


def test_constraints_pin_every_dependency_and_name_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    extras = PROJECT["optional-dependencies"]
    required = PROJECT["dependencies"] + [each for name in extras if name != "all" for each in extras[name]]
    wanted = {distribution_name(each) for each in required if "platform_machine == 'armv7l'" not in each}
    assert wanted - {distribution_name(pin) for pin in pins} == set()


def test_the_lock_and_the_bill_of_materials_hold_the_pinned_versions() -> None:
    def versions(pins: list[tuple[str, str]]) -> dict[str, str]:
        return {re.sub(r"[-_.]+", "-", name).lower(): version.removesuffix("+cpu") for name, version in pins}

    texts = [(ROOT / name).read_text() for name in ("requirements.lock", "constraints.txt")]
    locked, pinned = (versions(re.findall(r"(?m)^([\w.-]+)==([\w.+]+)", text)) for text in texts)
    bill = json.loads((ROOT / "sbom.cdx.json").read_text())["components"]
    listed = versions([(each["name"], each["version"]) for each in bill])
    assert locked.items() <= pinned.items()
    assert {name: version for name, version in listed.items() if name != "pip"} == locked
    assert texts[0].count(" --hash=sha256:") == len(locked)


def distribution_name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower()


def test_the_contract_of_command_lines_protects_every_entry_point() -> None:
    modules = {target.partition(":")[0] for target in PROJECT["scripts"].values()}
    assert set(CONTRACTS["command-lines"]["protected_modules"]) == modules


def test_the_torch_free_contract_covers_the_bench_and_every_room_below_torch() -> None:
    layers = CONTRACTS["direction"]["layers"]
    below = re.findall(r"\w+", " ".join(layers[layers.index("torch") + 1 :]))
    covered = CONTRACTS["torch-free"]["source_modules"]
    assert sorted(covered) == sorted(f"qnas.{name}" for name in ["runtime_bench", *below])


def test_no_file_has_more_than_400_lines() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in SOURCES}
    assert lengths
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_no_function_has_more_than_50_lines() -> None:
    functions = [
        (path.name, node.name, (node.end_lineno or 0) - node.lineno + 1)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert functions
    assert [function for function in functions if function[2] > 50] == []


def test_docstrings_stand_alone() -> None:
    fragments = [
        (path.name, text.splitlines()[0])
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and (text := ast.get_docstring(node) or "")
        and re.match(r"(Of|The same|The like|As|See)\b", text)
    ]
    assert fragments == []
