"""The command `qnas-bench fit`."""

from pathlib import Path

import click

from qnas.cli import QnasCommand, say

FILE = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.option("--device", default="cpu", show_default=True, help="Only cpu (onnxruntime) tells kernel times.")
@click.option(
    "--space",
    "spaces",
    multiple=True,
    type=click.Choice(["basic", "rfdn"]),
    help="Whose kernels to measure; repeatable.  [default: both]",
)
@click.option(
    "--size", "sizes", multiple=True, default=("128x128",), show_default=True,
    help="Height x width of the image; repeatable. Predict at these sizes.",
)  # fmt: skip
@click.option("--models", type=FILE, help="Measure the .onnx files of this folder, not random networks.")
@click.option(
    "--networks",
    type=click.IntRange(min=10),
    default=60,
    show_default=True,
    help="Random ones of each space.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads.")
@click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    default=600,
    show_default=True,
    help="Seconds of measuring, up to 5 rounds over all networks.",
)
@click.option("-o", "--output", type=FILE, required=True, help="The JSON file to write.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def main(
    device: str,
    spaces: tuple[str, ...],
    sizes: tuple[str, ...],
    models: Path | None,
    networks: int,
    threads: int,
    budget: float,
    output: Path,
    force: bool,
) -> None:
    """Measure this machine's kernels, from which `qnas-bench predict` adds up the latency of any network.

    Random networks of the spaces run under onnxruntime's profiler. The error that is printed is that of
    networks left out of the fit. Keep the machine quiet meanwhile.
    """
    from qnas.export.formats.table import models_in
    from qnas.files import check_outputs, write_file
    from qnas.runtime_bench.latency_model.fitting import FitSettings, fit, sources
    from qnas.runtime_bench.terminal import progress_bar
    from qnas.runtimes.inputs import parse_shape

    check_outputs([output], force, models_in(models) if models else [])
    settings = FitSettings(tuple(map(parse_shape, sizes)), threads, budget, device)
    with sources(models, spaces, networks) as files, progress_bar() as progress:
        model = fit(files, settings, progress)
    write_file(output, model.to_json(), force)
    say(f"{len(model.kernels)} kernels of {len(files)} networks -> {output}")
    if (seen := model.accuracy) is not None:
        say(
            f"left out {seen.networks}: mean error {seen.mape:.1%}, {seen.within_5:.0%} within 5 %, "
            f"{seen.within_10:.0%} within 10 %, rank correlation {seen.spearman:.3f}"
        )
