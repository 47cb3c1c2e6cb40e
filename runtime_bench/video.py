"""Videos as raw frames through ffmpeg, which has to be installed: decoded by one process, encoded by another.

    ffmpeg INPUT -> RGB bytes -> here, frame by frame -> RGB bytes -> ffmpeg, with INPUT's sound -> OUTPUT

Frames come at the constant rate that ffmpeg finds. The sound is copied as it is. Pictures are written as
H.264 in the colours of BT.709, at half their size (4:2:0) where both sides are even, as players want it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from qnas.errors import ImageError, OutputError, UsageError, printable
from qnas.files import atomic_write
from qnas.images.evaluation import Image

INPUTS = frozenset({".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})
OUTPUTS = {".mkv": "matroska", ".mov": "mov", ".mp4": "mp4"}  # suffix -> ffmpeg's name of the container
QUALITY = "16"  # constant rate factor of x264: no difference is seen
LONGEST_HEAD = 1 << 10  # bytes of the line in front of the frames of YUV4MPEG2
LARGEST_SIDE = 1 << 14  # pixels
LARGEST_ERRORS = 1 << 12  # bytes of what ffmpeg says that are read


@dataclass(frozen=True)
class Video:
    """The first picture track of a file: `rate` in frames a second, as ffmpeg writes it ("30000/1001")."""

    path: Path
    width: int
    height: int
    rate: str
    frames: int


def is_video(path: Path) -> bool:
    """Whether the name says that it is one."""
    return path.suffix.lower() in INPUTS


def check_video_name(path: Path) -> None:
    """Raise OutputError where the name is not that of a container that is written."""
    if path.suffix.lower() not in OUTPUTS:
        raise OutputError(f"{path} does not end in {', '.join(OUTPUTS)}: name such a file for a video")


def open_video(path: Path) -> Video:
    """Look at a file. Raises UsageError without ffmpeg, ImageError for what it cannot decode."""
    if not path.is_file():
        raise ImageError(f"{path} is not a file: name a video")
    one = ("-map", "0:v:0", "-frames:v", "1", "-f", "yuv4mpegpipe", "-strict", "-1", "-")
    with _program([*_reading(path), *one], path) as (_, head):
        line = head.readline(LONGEST_HEAD).decode("ascii", "replace")
        head.read()
    found = re.match(r"YUV4MPEG2 W(\d+) H(\d+) F(\d+):(\d+) ", line)
    width, height, count, seconds = map(int, found.groups()) if found else (0, 0, 0, 0)
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE and count and seconds):
        raise ImageError(f"{path} is no video that ffmpeg decodes: name another file")
    counting = ("-map", "0:v:0", "-c", "copy", "-progress", "pipe:1", "-f", "null", "-")
    with _program([*_reading(path), *counting], path) as (_, told):
        counts = re.findall(rb"^frame=\s*(\d+)", told.read(), re.MULTILINE)
    return Video(path, width, height, f"{count}/{seconds}", int(counts[-1]) if counts else 0)


def frames(video: Video) -> Generator[Image, None, None]:
    """Decode all frames, uint8 [H, W, 3]. Raises ImageError where ffmpeg fails."""
    raw = ("-map", "0:v:0", "-r", video.rate, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    size = video.width * video.height * 3
    with _program([*_reading(video.path), *raw], video.path) as (_, stream):
        while len(data := stream.read(size)) == size:
            yield np.frombuffer(data, np.uint8).reshape(video.height, video.width, 3)


def write_video(
    source: Video, target: Path, scale: int, enlarge: Callable[[Image], Image], force: bool = False
) -> int:
    """Write `target`, whole or not at all: the frames of `source`, enlarged, and its sound.

    Returns how many frames. Raises QnasError; whatever interrupts it leaves no process and no file.
    """
    width, height = scale * source.width, scale * source.height
    even = width % 2 == 0 and height % 2 == 0
    size = f"{width}x{height}"
    pixels = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", source.rate, "-i", "pipe:0")
    coded = (
        "-map", "0:v", "-map", "1:a?", "-c:a", "copy", "-c:v", "libx264", "-crf", QUALITY,
        "-vf", "scale=out_color_matrix=bt709:out_range=tv", "-pix_fmt", "yuv420p" if even else "yuv444p",
        "-colorspace", "bt709", "-f", OUTPUTS[target.suffix.lower()],
    )  # fmt: skip
    done = 0
    with atomic_write(target, force) as temporary:
        command = [_ffmpeg(), *QUIET, "-y", *pixels, "-i", f"file:{source.path}", *coded]
        writing = _program([*command, f"file:{temporary}"], target)
        with writing as (sink, _), closing(frames(source)) as decoded:
            for frame in decoded:
                try:
                    sink.write(enlarge(frame).tobytes())
                except BrokenPipeError:
                    break  # it has ended, and says why
                done += 1
    return done


# Processes ------------------------------------------------------------------------------------------------

QUIET = ("-nostdin", "-hide_banner", "-v", "error")


def _ffmpeg() -> str:
    found = shutil.which("ffmpeg")
    if found is None:
        raise UsageError("videos need ffmpeg, which is not installed: install it, or name an image")
    return found


def _reading(path: Path) -> list[str]:
    """What opens a file, and as such: from a list of addresses that it may hold, ffmpeg then opens none."""
    return [_ffmpeg(), *QUIET, "-i", f"file:{path}"]


@contextmanager
def _program(command: Sequence[str], about: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Run a program around the body, which has its input and output; it gets no Ctrl-C of its own.

    Raises ImageError with what it said where it fails, and kills it where the body does.
    """
    with tempfile.TemporaryFile() as errors:
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, process_group=0)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdin, process.stdout
            with suppress(BrokenPipeError):  # of what it did not read
                process.stdin.close()
            status = process.wait()
        finally:
            process.kill()  # harmless where it has ended
            process.wait()
            process.stdout.close()
            with suppress(BrokenPipeError):
                process.stdin.close()
        errors.seek(0)
        if status:
            said = errors.read(LARGEST_ERRORS).decode("utf-8", "replace").strip().splitlines()
            raise ImageError(f"{about}: ffmpeg failed: {printable(said[0], 200) if said else status}")
