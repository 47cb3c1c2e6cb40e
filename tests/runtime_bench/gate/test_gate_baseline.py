"""A baseline of another time: what is compared, and what is refused."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.errors import UsageError
from qnas.runtime_bench.cli import main as bench
from qnas.runtime_bench.gate import pairs
from qnas.runtime_bench.gate.baseline import UnpairedBounds, read_baseline, unpaired_bounds
from qnas.runtime_bench.gate.sequential import Status, decide
from qnas.runtime_bench.gate_cli import main
from qnas.testing.text_models import FLOAT_CONV, text_model

Json = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and what the bench wrote of it."""
    folder = tmp_path_factory.mktemp("baseline")
    onnx.save(text_model(FLOAT_CONV), folder / "model.onnx")
    arguments = [folder / "model.onnx", "--shape", "32x32", "--runs", 40, "--json", folder / "baseline.json"]
    result = CliRunner().invoke(bench, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def document(folder: Path) -> Json:
    found: Json = json.loads((folder / "baseline.json").read_text())
    return found


def gate(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def test_same_model_passes_its_own_baseline(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "SHORTEST", 0.01)
    monkeypatch.setattr(pairs, "LONGEST", 0.01)
    result = gate(
        folder / "model.onnx", "--baseline", folder / "baseline.json", "--shape", "32x32",
        "--max-slowdown", "900%", "--json", tmp_path / "gate.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "--against, interleaved on one machine, is stronger" in result.stdout
    assert len(json.loads((tmp_path / "gate.json").read_text())["timing"]["rounds_ns"][0]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["models"][0]["environment"].update(cpu="another"), "its processor was another"),
        (lambda d: d["models"][0]["environment"].update(cores=999), "its number of cores was 999"),
        (lambda d: d["models"][0]["environment"].update(runtime="onnxruntime 1.0"), "its runtime was"),
        (lambda d: d["settings"].update(threads=7), "its number of threads was 7"),
        (lambda d: d["settings"].update(cpus=[0]), "its processors (--cpus) was [0]"),
        (lambda d: d["models"][0]["inputs"]["image"].update(shape=[1, 3, 8, 8]), "image float32 1x3x8x8"),
        (lambda d: d["models"][0].update(device="openvino"), "no measurements of model.onnx on cpu"),
        (lambda d: d["models"].append(d["models"][0]), "2 measurements of model.onnx on cpu"),
        (lambda d: d.update(models=[]), "no measurements of model.onnx on cpu"),
        (lambda d: d.update(version=1), "is version 1 of the format, this is 2"),
        (lambda d: d.update(format="else"), "is no result of qnas-bench"),
        (lambda d: d["models"][0].update(rounds_ns=[]), "has not two rounds"),
        (
            lambda d: d["models"][0]["rounds_ns"][0].__setitem__(0, -5),
            "rounds_ns[0][0] is -5, not a whole number from 1",
        ),
    ],
)
def test_baseline_that_says_nothing_here_is_refused(
    folder: Path, document: Json, tmp_path: Path, change: Any, message: str
) -> None:
    changed = copy.deepcopy(document)
    change(changed)
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    result = gate(folder / "model.onnx", "--baseline", tmp_path / "changed.json", "--shape", "32x32")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[" * 100_000, b"{}", b"null", b"NaN", b"1" * 5000])
def test_file_that_is_no_baseline_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="is no"):
        read_baseline(path, "cpu", "model.onnx")


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where anything stands in a document, its long arrays cut."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value[:2]))
    return [path] + [place for key, each in items for place in places(each, (*path, key))]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@settings(max_examples=150)
@given(
    st.integers(0, 10**6),
    st.recursive(SCALARS, lambda e: st.lists(e, max_size=3) | st.just({}), max_leaves=5),
)
def test_mutated_baseline_is_read_or_refused(
    document: Json, tmp_path_factory: pytest.TempPathFactory, seed: int, value: object
) -> None:
    changed = copy.deepcopy(document)
    place = random.Random(seed).choice([each for each in places(document) if each])
    target: Any = changed
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    path = tmp_path_factory.mktemp("mutated") / "baseline.json"
    path.write_text(json.dumps(changed))
    try:
        found = read_baseline(path, "cpu", "model.onnx")
    except UsageError:
        return
    assert found.latency > 0


def test_bounds_of_one_process_are_as_wide_as_processes_differ() -> None:
    equal = UnpairedBounds(0.0)([1.0] * 8, 0.004)
    # 2.652 deviations of 1 %, of the baseline and, divided by 8 and times pi / 2, of the median
    assert equal.high == pytest.approx(np.exp(2.652 * 0.01 * np.sqrt(1 + np.pi / 16)), rel=1e-4)
    assert equal.low == pytest.approx(1 / equal.high)
    apart = UnpairedBounds(0.0)([0.9, 1.1] * 4, 0.004)
    assert apart.high > 1.3


def test_deviation_of_a_baseline_is_that_of_resampled_rounds(folder: Path, document: Json) -> None:
    baseline = read_baseline(folder / "baseline.json", "cpu", "model.onnx")
    found = unpaired_bounds(baseline, seed=0)
    assert found == unpaired_bounds(baseline, seed=0)
    assert 0 <= found.deviation < 1


@pytest.mark.parametrize(("truth", "wanted"), [(1.0, Status.PASS), (1.15, Status.FAIL)])
def test_unpaired_decision_of_processes_that_differ_by_one_percent(truth: float, wanted: Status) -> None:
    found = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        baseline = rng.normal(0, 0.01)  # one process, whatever it drew
        asked = iter(range(60))

        def draw(rng: np.random.Generator = rng, baseline: float = baseline) -> float:
            return truth * float(np.exp(rng.normal(0, 0.01) - baseline))

        decision = decide(
            draw, lambda asked=asked: next(asked, None) is not None, 1.05, UnpairedBounds(0.002)
        )
        found.append(decision.status)
    assert found.count(wanted) >= 95
    assert found.count(Status.FAIL if wanted is Status.PASS else Status.PASS) == 0
