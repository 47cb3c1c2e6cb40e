"""HTML pages as tests look at them, and texts that no page may let do anything."""

import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

EVIL = '<script>alert(1)</script><img src="http://example.com/x" onerror=alert(2)>" onload="alert(3)'
JUNK: list[Any] = [None, True, -1, 0, 1, 1e-300, 1e24, 1e25, 10**400, "", EVIL, "\ud800\x00\u202e",
                   "é" * 3999, [], {}, [[]], [None], {"a": 1}, 0.5]  # fmt: skip


def places(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in ((*before, key), *places(inner, (*before, key)))]


class Tags(HTMLParser):
    """What stands in a page: elements, names and values of attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str | None] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name in ("src", "href", "data", "style")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "|".join(self.words)


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("QNAS_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def opened(browser: str, file: Path, profile: Path) -> tuple[str, list[str]]:
    """The page's elements as the browser has them, and the lines of its console."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
               "--enable-logging=stderr", "--dump-dom", file.as_uri()]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return result.stdout, [line for line in result.stderr.splitlines() if "CONSOLE" in line]
