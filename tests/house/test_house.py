"""The rules of the house that neither ruff, mypy nor a single import-linter contract can hold."""

import ast
import re
import resource
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
SOURCES = sorted(
    path
    for folder in ("src", "search", "calibration", "export", "runtime_bench")
    for path in ROOT.glob(f"{folder}/**/*.py")
)


def children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("script", sorted(PROJECT["scripts"]))
def test_every_command_answers_help_within_three_tenths_of_a_second(script: str) -> None:
    command = [str(Path(sys.executable).parent / script), "--help"]
    seconds = []
    for _ in range(5):  # CPU time, and the least of it: a busy machine must not fail the test
        before = children_cpu_seconds()
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(children_cpu_seconds() - before)
        assert result.stdout.startswith(f"Usage: {script} ")
    assert min(seconds) < 0.3


def test_no_module_of_the_bench_loads_torch() -> None:
    program = """
import importlib, pkgutil, sys, qnas.runtime_bench as bench
names = [module.name for module in pkgutil.iter_modules(bench.__path__, "qnas.runtime_bench.")]
for name in names:
    importlib.import_module(name)
print(len(names), "torch" in sys.modules)
"""
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    count, torch_loaded = output.split()
    assert int(count) > 0
    assert torch_loaded == "False"


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


def distribution_name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower()


def test_the_contract_of_command_lines_protects_every_entry_point() -> None:
    modules = {target.partition(":")[0] for target in PROJECT["scripts"].values()}
    assert set(CONTRACTS["command-lines"]["protected_modules"]) == modules


def test_the_torch_free_contract_covers_the_bench_and_every_room_below_torch() -> None:
    layers = CONTRACTS["direction"]["layers"]
    below = [name for layer in layers[layers.index("torch") + 1 :] for name in re.findall(r"\w+", layer)]
    assert below
    assert {f"qnas.{name}" for name in ["runtime_bench", *below]} <= set(
        CONTRACTS["torch-free"]["source_modules"]
    )


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
