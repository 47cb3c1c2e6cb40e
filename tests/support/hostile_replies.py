"""Machines behind ssh that lie, flood, dribble, hang or die: a real program in place of ssh that does it.

The program answers every request of the bench's protocol as a worker here did, but for the one that its case
is about. Its cases are every value of every answer replaced, and what else a peer can do to a conversation.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from click.testing import CliRunner, Result

from qnas.errors import QnasError
from qnas.runtime_bench.measure_cli import main
from qnas.runtime_bench.page.report_page import report_page
from qnas.runtime_bench.workers.worker import Worker
from qnas.testing.phone import program
from qnas.testing.text_models import INTEGER_CONV, text_model

PEER = """#!{python} -S
import json, os, sys, time
folder = os.path.dirname(os.path.abspath(__file__))
honest = json.load(open(folder + "/honest.json"))
case = json.load(open(folder + "/case.json"))
out = sys.stdout.buffer
def say(data):
    out.write(data); out.flush()
def act(how):
    if how == "say": say(case["text"].encode("utf-8", "surrogateescape") + b"\\n")
    if how == "nothing": time.sleep(600)
    if how == "end": sys.exit(3)
    if how == "close":
        os.close(1); time.sleep(600)
    if how == "half a line":
        say(b'{"ns": ['); time.sleep(600)
    if how == "dribble":
        while True: say(b" "); time.sleep(0.1)
    if how == "dribble errors":
        while True: os.write(2, b"x\\n"); time.sleep(0.1)
    if how == "flood":
        while True: say(b"[" * 65536)
    if how == "flood lines":
        while True: say(b"{}\\n" * 9999)
    if how == "flood errors":
        while True: os.write(2, b"e" * 65536)
    if how == "child":
        import subprocess
        subprocess.Popen(["sleep", "600"]); sys.exit(3)
while True:
    if case["do"] == "stop reading" and case["seen"] == 0: time.sleep(600)
    line = sys.stdin.buffer.readline()
    if not line: break
    asked = json.loads(line)
    if case["do"] == "stop reading": case["seen"] -= 1
    if asked["do"] == case["do"]:
        if case["how"] != "say": act(case["how"])
        else:
            text = case["text"]
            if asked["do"] == "run": text = text.replace('"TIMES"', ", ".join(["100000"] * asked["count"]))
            say(text.encode("utf-8", "surrogateescape") + b"\\n")
        continue
    if asked["do"] == "run":
        time.sleep(0.00012 * asked["count"]); answer = {"ns": [100000] * asked["count"]}
    else: answer = honest[asked["do"]]
    say(json.dumps(answer).encode() + b"\\n")
"""
HOWS = (
    "nothing", "end", "close", "half a line", "dribble", "dribble errors", "flood", "flood lines",
    "flood errors", "child",
)  # fmt: skip
LONG = "\x1b[31m\u202e" + "x" * 5000
SHAPE = "8x8"
VALUES: tuple[str, ...] = (
    "NaN", "Infinity", "-Infinity", "-1", "-0.5", "1e300", str(10**300), "1e-300", "0",
    "18446744073709551616",
    "true", "null", '"text"', json.dumps(LONG), '"\\ud800"', '"\udcff\udcfe"', "[]", "{}", "[[]]", "[-1]",
    '[1e300]', '{"a": [1, 2]}', "[" * 3000 + "]" * 3000,
)  # fmt: skip
WHOLE = (
    "", "Welcome!", "\udcff\udcfe\udc00", "null", "[]", "1", '"x"', "{", '{"error": 1}', '{"usage": true}',
    '{"error": "\x1b[31mred"}', json.dumps({"error": LONG * 200}), "{}\n{}", "\x00", '{"a":' * 3000,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """`do`: the request that is answered badly; `how`: what is done then; `text`: what is said."""

    name: str
    do: str
    how: str = "say"
    text: str = ""

    def write(self, folder: Path) -> None:
        """Let the peer of `folder` act it out."""
        seen = int(self.how) if self.do == "stop reading" else 0
        case = {"do": self.do, "how": self.how, "text": self.text, "seen": seen}
        (folder / "case.json").write_text(json.dumps(case))


def make_peer(folder: Path) -> dict[str, Any]:
    """Write `model.onnx`, and `ssh`, for $QNAS_SSH; returns the honest answers by request."""
    onnx.save(text_model(INTEGER_CONV), folder / "model.onnx")
    worker, model = Worker(), str(folder / "model.onnx")
    load = {
        "model": model,
        "device": "cpu",
        "options": {},
        "threads": 1,
        "shapes": ["8x8"],
        "seed": 0,
        "cpus": [],
    }
    asked: dict[str, dict[str, Any]] = {
        "hello": {}, "load": load, "state": {}, "executed": {"runs": 1}, "outputs": {}, "listing": {},
    }  # fmt: skip
    honest = {do: worker.answer({"do": do, **arguments}) for do, arguments in asked.items()}
    rates = {"integer_gops": 100.0, "float_gflops": 10.0, "gigabytes": 5.0}
    honest |= {"has": {"there": False}, "put": {}, "kept": {"path": model}}
    honest["peak"] = {**rates, "threads": 1, "runtime": "onnxruntime"}
    honest = json.loads(json.dumps(honest))
    honest["run"] = {"ns": ["TIMES"]}
    (folder / "honest.json").write_text(json.dumps(honest))
    program(folder / "ssh", PEER)
    return honest


def converse(folder: Path, case: Case) -> tuple[Result, str]:
    """The command of a benchmark on the peer: what came of it, and what is wrong with that, or ""."""
    case.write(folder)
    written = folder / "report.json"
    written.unlink(missing_ok=True)
    line = f"--device ssh:peer/cpu --shape {SHAPE} --runs 2 --warmup 1 --profile --timeout 1 --json"
    result = CliRunner().invoke(main, [str(folder / "model.onnx"), *line.split(), str(written)])
    wrong = ""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        wrong = f"a bug: {result.exception!r}"
    elif not result.output.replace("\n", "").isprintable():
        wrong = "what a terminal obeys"
    elif result.exit_code == 2 and (result.stdout or result.stderr.count("\n") != 1 or written.exists()):
        wrong = "more than one line, or a file, of an error"
    elif result.exit_code == 0:
        try:
            report_page([written])
        except QnasError as error:
            wrong = f"a report that is no report: {error}"
    return result, wrong


def cases(honest: dict[str, Any]) -> Iterator[Case]:
    """All of them."""
    for do in ("hello", "has", "put", "kept", "load", "run", "state", "executed", "peak"):
        yield from (Case(f"{do}: {how}", do, how) for how in HOWS)
        yield from (Case(f"{do}: {text[:40]!r}", do, "say", text) for text in WHOLE)
        yield from _changed(do, honest[do])
    for seen in range(4):
        yield Case(f"reads no more after {seen} requests", "stop reading", str(seen))
    for times in ("[]", '["TIMES", 1]', "[1, 2, 3]", f"[{'1000000000000, ' * 3}1]", "[0]", "[1.5]"):
        yield Case(f"run: times {times[:30]}", "run", "say", f'{{"ns": {times}}}')


def _changed(do: str, answer: Any) -> Iterator[Case]:
    """The answer with each of its values replaced, or left out."""
    for path in _paths(answer):
        where = ".".join(map(str, path))
        for value in VALUES:
            marked = _with(answer, path, lambda parent, key: parent.__setitem__(key, "<HERE>"))
            yield Case(f"{do}: {where} = {value[:30]!r}", do, "say", marked.replace('"<HERE>"', value))
        yield Case(
            f"{do}: without {where}", do, "say", _with(answer, path, lambda parent, key: parent.pop(key))
        )


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from _paths(each, (*path, key))


def _with(answer: Any, path: tuple[Any, ...], change: Callable[[Any, Any], Any]) -> str:
    copy = parent = json.loads(json.dumps(answer))
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    return json.dumps(copy)
