"""The command `qnas-bench correlate`."""

from pathlib import Path
from typing import Any

import click

from qnas.cli import QnasCommand, say
from qnas.runtime_bench.load_options import load_options

FILE = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.argument("folder", type=FILE)
@click.option(
    "--device", "devices", multiple=True,
    help="Where to measure, repeatable.  [default: cpu for .onnx, litert:xnnpack for .tflite]",
)  # fmt: skip
@click.option("--model", "table", type=FILE, help="A file of `qnas-bench fit`: predictions are compared too.")
@load_options
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=0.2,
    show_default=True,
    help="Run time of a model in each of 3 passes.",
)
@click.option("-o", "--output", type=FILE, required=True, help="The HTML page to write.")
@click.option("--json", "json_path", type=FILE, help="Write all numbers to this file.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
def main(
    folder: Path,
    devices: tuple[str, ...],
    table: Path | None,
    seconds: float,
    output: Path,
    json_path: Path | None,
    force: bool,
    **load: Any,
) -> None:
    """Rank correlation of MACs, BitOps and predictions with measured latency, over the models of FOLDER.

    Files that differ in their suffix alone are one network: each device measures the kind that it runs.
    """
    import json
    from itertools import chain

    from qnas.export.formats.table import models_in
    from qnas.files import check_outputs, write_file
    from qnas.runtime_bench.latency_model.correlation import Settings, correlate
    from qnas.runtime_bench.latency_model.table import read_latency_model
    from qnas.runtime_bench.page.correlation_page import correlation_page
    from qnas.runtime_bench.terminal import progress_bar
    from qnas.runtime_bench.workers.process import LoadOptions

    check_outputs([output, json_path], force, chain(models_in(folder), [table]))
    model = None if table is None else read_latency_model(table)
    settings = Settings(devices, LoadOptions(**load), seconds, model)
    with progress_bar() as progress:
        study = correlate(folder, settings, progress)
    write_file(output, correlation_page(study, "Costs and latency"), force)
    if json_path is not None:
        write_file(json_path, json.dumps(study.to_document(), indent=1) + "\n", force)
    for each in study.correlations:
        say(
            f"{each.device:16} {each.cost:16} Spearman {each.spearman:.3f} "
            f"({each.low:.3f} to {each.high:.3f}), Kendall {each.kendall:.3f}, {each.networks} networks"
        )
    for text in study.failures:
        say(f"not measured: {text}", err=True)
