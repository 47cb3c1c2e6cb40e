"""The command `qnas-bench gate`."""

from pathlib import Path
from typing import Any

import click

from qnas.cli import QnasCommand
from qnas.runtime_bench.load_options import load_options

FILE = click.Path(path_type=Path)


# fmt: off
@click.command(cls=QnasCommand)
@click.argument("model", type=FILE)
@click.option("--against", type=FILE, help="The old model, measured in turns with MODEL: what CI should use.")
@click.option("--baseline", type=FILE, help="What qnas-bench OLD --json wrote on this machine before.")
@click.option("--max-slowdown", default="5%", show_default=True, metavar="5%|0.05",
              help="Latency over the old one's.")
@click.option("--no-timing", is_flag=True, help="Do not gate the latency.")
@click.option("--instructions", is_flag=True, help="Gate the instructions of an inference, by valgrind.")
@click.option("--max-instructions", default="+1%", show_default=True, metavar="+1%",
              help="Instructions over the old model's.")
@click.option("--max-size", metavar="BYTES|+X%", help="Of the files; k, M and G are powers of 1000.")
@click.option("--max-macs", metavar="N|+X%", help="Multiply-adds: 250M, or over the old model's.")
@click.option("--max-bitops", metavar="N|+X%", help="BitOps: 16G, or over the old model's.")
@click.option("--min-integer", metavar="SHARE", help="Share of the MACs that run in integers: 100% or 1.0.")
@click.option("--min-psnr", type=click.FloatRange(0), metavar="DB", help="PSNR on Y over --images.")
@click.option("--max-psnr-drop", type=click.FloatRange(0), metavar="DB", help="PSNR below the old model's.")
@click.option("--images", type=FILE, help="Folder of HR images; LR ones are made by antialiased bicubic.")
@click.option("--device", help="Where to run, as in qnas-bench --list-devices.  [default: by the file]")
@load_options
@click.option("--budget", type=click.FloatRange(min=0, min_open=True), default=60, show_default=True,
              help="Seconds of timing at most.")
@click.option("--json", "json_path", type=FILE, help="Write the report, with every sample, to this file.")
@click.option("--markdown", type=FILE, help="Write a summary for CI to this file.")
@click.option("--junit", type=FILE, help="Write JUnit XML to this file.")
@click.option("--force", is_flag=True, help="Replace output files that exist.")
def main(
    model: Path, against: Path | None, baseline: Path | None, max_slowdown: str, no_timing: bool,
    instructions: bool, max_instructions: str, max_size: str | None, max_macs: str | None,
    max_bitops: str | None, min_integer: str | None, min_psnr: float | None, max_psnr_drop: float | None,
    images: Path | None, device: str | None, budget: float, json_path: Path | None, markdown: Path | None,
    junit: Path | None, force: bool, **load: Any,
) -> None:
    # fmt: on
    """Is MODEL worse than another? Exit code 0: pass, 1: fail, 3: inconclusive, 2: wrong use or input.

    Latency is compared in pairs of fresh processes until the interval of the ratio lies on one side of
    --max-slowdown, and a fail is confirmed by a second sample. What is still open when the budget ends is
    inconclusive. All other gates are counted, not timed, and decide first.
    """
    from qnas.runtime_bench.gate.limits import parse_increase, parse_limit, parse_share
    from qnas.runtime_bench.gate.output import print_report, write_outputs
    from qnas.runtime_bench.gate.request import Outputs, Request, check_free, check_request
    from qnas.runtime_bench.gate.run import run_gate
    from qnas.runtime_bench.terminal import progress_bar
    from qnas.runtime_bench.workers.process import LoadOptions

    slowdown = parse_increase("--max-slowdown", max_slowdown)
    increase = parse_increase("--max-instructions", max_instructions)
    compared = against is not None or baseline is not None
    request = Request(
        model, against, baseline, device, LoadOptions(**load),
        max_slowdown=slowdown if compared and not no_timing else None,
        max_instructions=increase if instructions else None,
        max_size=parse_limit("--max-size", max_size) if max_size else None,
        max_macs=parse_limit("--max-macs", max_macs) if max_macs else None,
        max_bitops=parse_limit("--max-bitops", max_bitops) if max_bitops else None,
        min_integer=parse_share("--min-integer", min_integer) if min_integer else None,
        min_psnr=min_psnr, max_psnr_drop=max_psnr_drop, images=images, budget=budget,
    )  # fmt: skip
    outputs = Outputs(json_path, markdown, junit)
    check_request(request)
    check_free(outputs, request, force)
    with progress_bar() as progress:
        report = run_gate(request, progress)
    write_outputs(report, outputs, force)
    print_report(report)
    raise SystemExit(report.exit_code)
