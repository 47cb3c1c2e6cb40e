"""Inputs end; an output appears whole or not at all."""

import contextlib
import os
import resource
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qnas.calibration.document import read_calibration
from qnas.calibration.prepare.float_model import read_float_model
from qnas.errors import OutputError, QnasError
from qnas.files import atomic_write, check_output, check_outputs, read_input, write_file
from qnas.images.files import read_image
from qnas.network.architecture import read_architecture
from qnas.onnx.files import read_model
from qnas.runtime_bench.latency_model.table import read_latency_model
from qnas.runtime_bench.result_files import read_result
from qnas.search.imports.genotype import read_genotype
from qnas.search.sweep.member import read_record
from qnas.tflite.reader import read_tflite
from qnas.torch.checkpoint import load_found


@contextlib.contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_under_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "found.pt"
    with atomic_write(target) as temporary:
        temporary.write_text("all")
        assert not target.exists()
        assert temporary.parent == tmp_path  # a rename within one file system
    assert target.read_text() == "all"
    assert names(tmp_path) == ["found.pt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "found.pt"
    target.write_text("old")
    with contextlib.suppress(KeyboardInterrupt), atomic_write(target, force=True) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert names(tmp_path) == ["found.pt"]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "found.pt"
    advice = "cannot write .*found.pt: File too large, free space or choose another folder"
    with pytest.raises(OutputError, match=advice), disk_of(1000), atomic_write(target) as temporary:
        temporary.write_bytes(bytes(10_000))
    assert names(tmp_path) == []


def test_an_output_is_as_readable_as_any_other_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "ours"):
        pass
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")]
    assert modes[0] == modes[1]


def test_an_existing_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    target = tmp_path / "found.pt"
    target.write_text("old")
    with pytest.raises(OutputError, match="exists: pass --force to replace it, or name another"):
        check_output(target, force=False)
    with pytest.raises(OutputError, match="exists"), atomic_write(target):
        pytest.fail("the work must not begin")
    with atomic_write(target, force=True) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "socket", "device"])
def test_what_is_no_plain_file_is_no_output_even_with_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    out = Path("out")
    match kind:
        case "folder":
            out.mkdir()
        case "link":
            out.symlink_to("nowhere")
        case "pipe":
            os.mkfifo(out)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(str(out))
        case "device":
            out = Path("/dev/null")
    with pytest.raises(OutputError, match=f"{out} is a {kind}, which is never replaced: name a file"):
        check_output(out, force=True)


def test_two_names_of_one_file_are_not_two_outputs(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(tmp_path)
    with pytest.raises(OutputError, match=r"again/a is named for two outputs: name another file"):
        check_outputs([tmp_path / "a", None, tmp_path / "again" / "a"], force=False)


@pytest.mark.parametrize("name", ["x" * 251 + ".pt", "é" * 126 + ".pt"])
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path, name: str) -> None:
    write_file(tmp_path / name, "all")
    assert names(tmp_path) == [name]


def test_a_name_that_is_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="File name too long, name another file"):
        check_output(tmp_path / ("x" * 256), force=False)


def test_what_came_while_the_work_was_done_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "found.pt"
    with pytest.raises(OutputError, match="exists: pass --force"), atomic_write(target):
        target.write_text("theirs")
    assert target.read_text() == "theirs"
    assert names(tmp_path) == ["found.pt"]


def test_text_that_is_no_unicode_is_written_with_question_marks(tmp_path: Path) -> None:
    write_file(tmp_path / "page.html", "\udcff!")
    assert (tmp_path / "page.html").read_bytes() == b"?!"


def test_a_missing_folder_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the folder .*nowhere does not exist, create it first"):
        check_output(tmp_path / "nowhere" / "found.pt", force=False)


def test_a_folder_without_permission_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(OutputError, match=r"no permission in .*, choose another folder"):
        check_output(tmp_path / "found.pt", force=False)


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[list[Path]]:
    """A device without an end, and a FIFO into which nobody writes; whoever waits for it is ended."""

    def late(*_: object) -> None:
        raise TimeoutError

    os.mkfifo(tmp_path / "fifo")
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield [Path("/dev/zero"), tmp_path / "fifo"]
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "read",
    [
        read_architecture, read_calibration, read_float_model, read_genotype, read_image, read_latency_model,
        read_model, read_record, read_result, read_tflite, load_found,
    ],
)  # fmt: skip
def test_no_reader_waits_for_what_is_no_regular_file(
    read: Callable[[Path], object], endless: list[Path]
) -> None:
    for path in endless:
        with pytest.raises(QnasError, match=r"it is no regular file|is not a file|no checkpoint"):
            read(path)


def test_an_input_has_a_largest_size(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"12345")
    assert read_input(path, 5) == b"12345"
    with pytest.raises(OSError, match="it has more than 4 bytes"):
        read_input(path, 4)
