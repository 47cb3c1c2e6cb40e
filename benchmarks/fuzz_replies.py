"""Benchmarks on machines that lie, flood, dribble or hang: each ends in time, refused or with a sound report.

    python benchmarks/fuzz_replies.py --cases 500

Prints what came of the conversations by their request, and every failure; exits with 1 when there is one.
"""

import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from qnas.testing.hostile_replies import cases, converse, make_peer

LONGEST = 60.0  # s; a conversation of some requests, each of which may take a second


@click.command()
@click.option("--cases", "count", type=click.IntRange(1), default=500, show_default=True, help="How many.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which.")
def main(count: int, seed: int) -> None:
    """Run them and count."""
    console, outcomes, failures = Console(stderr=True), Counter[tuple[str, str]](), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        every = list(cases(make_peer(folder)))
        os.environ |= {"QNAS_SSH": str(folder / "ssh"), "QNAS_CACHE": str(folder / "cache")}
        chosen = Random(seed).sample(every, min(count, len(every)))
        for case in track(chosen, f"{len(chosen)} of {len(every)}", console=console, transient=True):
            begun = time.monotonic()
            result, wrong = converse(folder, case)
            wrong = wrong or ("longer than it may" if time.monotonic() - begun > LONGEST else "")
            refused = result.exit_code or "is unknown: " in result.stderr  # by a note on what ran where
            outcomes[case.do, "failed" if wrong else "refused" if refused else "taken"] += 1
            if wrong:
                failures += 1
                console.print(f"{case.name}: {wrong}: {result.output[-300:]!r}", markup=False)
    table = Table("request", "refused", "taken", "failed")
    for do in dict.fromkeys(do for do, _ in outcomes):
        table.add_row(do, *(str(outcomes[do, outcome]) for outcome in ("refused", "taken", "failed")))
    Console().print(table)
    raise SystemExit(failures > 0)


if __name__ == "__main__":
    main()
