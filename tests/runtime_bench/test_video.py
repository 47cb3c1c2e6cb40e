"""`qnas-upscale` of a video: each frame as an image, the sound as it was; nothing half-written."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from qnas.errors import ImageError
from qnas.runtime_bench.upscale import load_upscaler
from qnas.runtime_bench.upscale_cli import main
from qnas.runtime_bench.video import frames, open_video, write_video
from qnas.testing.text_models import text_model

DOUBLING = """
net (uint8[n, 3, h, w] image) => (uint8[n, 3, y, x] upscaled) <float[4] factors = {1, 1, 2, 2}>
{
    upscaled = Resize <mode = "nearest"> (image, , factors)
}"""


@pytest.fixture
def ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The program, of the system or of the package imageio-ffmpeg."""
    found = shutil.which("ffmpeg")
    if found is None:
        package = pytest.importorskip("imageio_ffmpeg", reason="no ffmpeg: install it, or imageio-ffmpeg")
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/ffmpeg").symlink_to(package.get_ffmpeg_exe())
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return "ffmpeg"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "doubling.onnx"
    path.write_bytes(text_model(DOUBLING).SerializeToString())
    return path


def made(path: Path, size: str = "64x48", seconds: float = 0.4, sound: bool = True) -> Path:
    """A moving picture of 30000/1001 frames a second, with a tone."""
    tone = ["-f", "lavfi", "-i", f"sine=duration={seconds}", "-c:a", "aac"] if sound else []
    picture = ["-f", "lavfi", "-i", f"testsrc=size={size}:rate=30000/1001:duration={seconds}"]
    shades = ["-pix_fmt", "yuv444p", "-c:v", "libx264", "-preset", "ultrafast", "-crf", "10"]
    subprocess.run(["ffmpeg", "-v", "error", *picture, *tone, *shades, str(path)], check=True)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def sound_of(path: Path) -> bytes:
    """The packets of the sound, as they are stored."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a", "-c", "copy", "-f", "adts", "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.mark.parametrize("size", ["64x48", "65x47"], ids=["even", "odd sides"])
def test_each_frame_is_upscaled_and_the_sound_is_that_of_the_video(
    ffmpeg: str, model: Path, tmp_path: Path, size: str
) -> None:
    source, target = made(tmp_path / "a.mkv", size), tmp_path / "b.mp4"
    result = run(model, source, "-o", target)
    assert result.exit_code == 0, result.output
    width, height = map(int, size.split("x"))
    assert f"{size} -> {2 * width}x{2 * height}, 12 frames" in result.output
    given, found = open_video(source), open_video(target)
    assert (found.width, found.height, found.rate, found.frames) == (2 * width, 2 * height, "30000/1001", 12)
    upscaler = load_upscaler(model, threads=1)
    for small, large in zip(frames(given), frames(found), strict=True):
        wanted = upscaler(small).astype(float)
        luma = (large @ (0.299, 0.587, 0.114)) - (wanted @ (0.299, 0.587, 0.114))
        assert 10 * np.log10(255**2 / np.square(luma).mean()) > 30
    assert sound_of(target) == sound_of(source) != b""


def test_a_video_without_sound_stays_without(ffmpeg: str, model: Path, tmp_path: Path) -> None:
    source = made(tmp_path / "a.mov", sound=False)
    assert run(model, source, "-o", tmp_path / "b.mkv").exit_code == 0
    assert open_video(tmp_path / "b.mkv").frames == 12


@pytest.mark.parametrize(
    ("name", "output", "advice"),
    [
        ("a.mp4", "b.png", "does not end in .mkv, .mov, .mp4"),
        ("a.mp4", "b.mp4", "ffmpeg failed: "),
        ("none.mp4", "b.mp4", "is not a file"),
        ("a.mp4", "a.mp4", "would replace what is read"),
    ],
)
def test_wrong_calls_end_in_one_line_and_write_nothing(
    ffmpeg: str, model: Path, tmp_path: Path, name: str, output: str, advice: str
) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    before = sorted(tmp_path.iterdir())
    result = run(model, tmp_path / name, "-o", tmp_path / output, "--force")
    assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
    assert advice in result.output
    assert sorted(tmp_path.iterdir()) == before


def test_without_ffmpeg_a_line_says_so(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run(model, tmp_path / "a.mp4", "-o", tmp_path / "b.mp4")
    assert result.exit_code == 2
    assert (
        result.output == "error: videos need ffmpeg, which is not installed: install it, or name an image\n"
    )


def test_a_list_of_addresses_is_no_video_and_nobody_is_called(ffmpeg: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        listed = tmp_path / "list.ts"
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        listed.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(ImageError):
            open_video(listed)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_what_fails_in_the_middle_leaves_no_file(ffmpeg: str, tmp_path: Path) -> None:
    source = open_video(made(tmp_path / "a.mkv"))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError):
        write_video(source, tmp_path / "b.mp4", 1, lambda frame: frame[: 1 // 0])
    assert sorted(tmp_path.iterdir()) == before


def test_ctrl_c_leaves_no_file_and_no_process(ffmpeg: str, model: Path, tmp_path: Path) -> None:
    source = made(tmp_path / "a.mkv", size="320x240", seconds=15)
    before = sorted(tmp_path.iterdir())
    words = [str(model), str(source), "-o", str(tmp_path / "b.mp4"), "--tile", "64"]
    code = "import sys; from qnas.runtime_bench.upscale_cli import main; main(sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.DEVNULL)
    while not any(path.stat().st_size for path in tmp_path.glob("*.part")):  # until ffmpeg writes
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert sorted(tmp_path.iterdir()) == before
