"""What several tests share: one torch thread, repeatable properties, pictures, calibrated networks.

Where torch is not installed, what cannot do without it is skipped: a module or test that fails after it asked
for torch. Nothing is marked: what stops asking joins, and what asks but goes on without it is tested as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import hypothesis
import numpy as np
import pytest

from qnas.images.files import write_png
from qnas.images.samples import sample_photographs
from qnas.network.architecture import Architecture
from qnas.network.lowering import lower
from qnas.testing.places import REFERENCE

if TYPE_CHECKING:
    import torch

    from qnas.torch.network import Network

TORCH = find_spec("torch") is not None


class Asked(MetaPathFinder):
    """Finds nothing, and remembers that torch was asked for."""

    torch = False

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        self.torch |= name == "torch"


Report = TypeVar("Report", pytest.CollectReport, pytest.TestReport)
asked = Asked()
left_out: set[tuple[str, str]] = set()  # ("module" or "test", its name) that need torch
if TORCH:
    import torch

    torch.set_num_threads(1)
else:
    sys.meta_path.append(asked)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    asked.torch = False
    return without_torch((yield), "module", collector.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = without_torch((yield), "test", item.nodeid)
    if call.when == "teardown":
        asked.torch = False
    return report


def without_torch(report: Report, what: str, name: str) -> Report:
    """`report`, skipped and counted if it failed for want of torch."""
    if report.failed and asked.torch:
        left_out.add((what, name))
        report.outcome = "skipped"
        report.longrepr = (
            str(Path(__file__)),
            1,
            f"Skipped: a {what} that needs torch, which is not installed",
        )
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # pytest-xdist tells its first process nothing of modules
        session.config.workeroutput["left_out"] = sorted(left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    left_out.update((what, name) for what, name in getattr(node, "workeroutput", {}).get("left_out", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not TORCH:
        modules, tests = (sum(what == each for each, _ in left_out) for what in ("module", "test"))
        terminalreporter.section("without torch")
        terminalreporter.line(f"{modules} modules and {tests} tests that need it were left out")


hypothesis.settings.register_profile("house", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("house")


@pytest.fixture(autouse=TORCH)
def one_thread() -> Iterator[None]:
    """Fails a test that leaves torch with other threads: later tests would compute other last bits."""
    yield
    assert torch.get_num_threads() == 1


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of the reference vectors: outputs of the released code of the QuantNAS paper."""
    if not REFERENCE.is_dir():
        pytest.skip(f"no reference vectors in {REFERENCE}: set QNAS_REFERENCE")
    return REFERENCE


@pytest.fixture(scope="session")
def picture() -> torch.Tensor:
    """Two photographs of odd size as a network reads them: [2, 3, 17, 19]."""
    pytest.importorskip("torch")
    from qnas.torch.inference import to_network

    _, pixels = sample_photographs()[0]
    return to_network(np.stack([pixels[:51:3, :57:3], pixels[150:201:3, 200:257:3]]))


@pytest.fixture(scope="session")
def calibrated(picture: torch.Tensor) -> Callable[[Architecture], Network]:
    """Builds a network of random weights, its activation scales and statistics from `picture`."""
    from qnas.torch.network import Network

    def build(architecture: Architecture) -> Network:
        torch.manual_seed(0)
        network = Network(lower(architecture))
        with torch.no_grad(), network.calibrated_by_data():
            network.train()(picture)
        return network

    return build


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of three smooth pictures of 64x72 pixels."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    y, x = np.mgrid[:64, :72]
    for k in range(3):
        waves = [np.sin(x / (3 + k + c)) + np.cos(y / (5 - k + c)) for c in range(3)]
        write_png(folder / f"{k}.png", np.round(127 + 60 * np.stack(waves, 2)).astype(np.uint8))
    return folder
