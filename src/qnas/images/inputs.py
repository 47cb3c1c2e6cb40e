"""The files that a run reads, by name and bytes: one that goes on has to find what it began with."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from qnas.errors import UsageError
from qnas.images.files import file_sha256, list_images

Digests = Mapping[str, Mapping[str, str]]  # path of a file or a folder of images -> name -> SHA-256


def digests(paths: Iterable[Path]) -> dict[str, dict[str, str]]:
    """The digests of files, and of all images of folders. Raises ImageError where one cannot be read."""
    return {
        str(path): {
            file.name: file_sha256(file) for file in ([path] if path.is_file() else list_images(path))
        }
        for path in paths
    }


def check_unchanged(then: Digests, now: Digests, again: str) -> None:
    """Raise UsageError, naming the first file that differs, of paths in both; `again` says how to begin."""
    for path in then.keys() & now.keys():
        before, after = then[path], now[path]
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                verb = (
                    "is missing" if name not in after else "is new" if name not in before else "has changed"
                )
                raise UsageError(
                    f"{name} of {path} {verb} since this was begun: put back what was there, or {again}"
                )
