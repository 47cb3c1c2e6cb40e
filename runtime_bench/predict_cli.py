"""The command `qnas-bench predict`."""

from pathlib import Path

import click

from qnas.cli import QnasCommand, say

FILE = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.argument("source", metavar="MODEL.onnx", type=FILE)
@click.option("--model", "table", type=FILE, required=True, help="A file of `qnas-bench fit`.")
@click.option(
    "--shape", "shapes", multiple=True, help="Shape of an input, as of `qnas-bench measure`; repeatable."
)
@click.option("--per-layer", is_flag=True, help="Every kernel with its time and what that rests on.")
@click.option("--json", "json_path", type=FILE, help="Write the prediction to this file.")
@click.option("--force", is_flag=True, help="Replace the JSON file if it exists.")
def main(
    source: Path, table: Path, shapes: tuple[str, ...], per_layer: bool, json_path: Path | None, force: bool
) -> None:
    """Predict a model's latency on the machine that `fit` measured, without timing anything.

    The model runs once, for the shapes of its tensors. Kernels unlike any that was measured are named: trust
    the sum as little as they are large in it.
    """
    import json
    from itertools import chain

    from qnas.export.formats.table import files_of
    from qnas.files import check_outputs, write_file
    from qnas.runtime_bench.environment import threads_text
    from qnas.runtime_bench.latency_model.prediction import predict
    from qnas.runtime_bench.latency_model.table import read_latency_model
    from qnas.runtimes.inputs import parse_shape

    check_outputs([json_path], force, chain(files_of(source), [table]))
    model = read_latency_model(table)
    prediction = predict(source, model, tuple(map(parse_shape, shapes)))
    if json_path is not None:
        write_file(json_path, json.dumps(prediction.to_document(), indent=1) + "\n", force)
    if per_layer:
        for node in prediction.nodes:
            say(f"{node.ms:9.4f} ms  {node.basis:12}  {node.name}: {node.kernel}")
    threads = threads_text(model.threads)
    machine = model.environment.get("cpu", "unknown")
    say(f"{source}: {prediction.ms:.3f} ms predicted for {model.device} on {machine}, {threads}")
    if prediction.elsewhere:
        say(f"note: that is another machine or runtime than this one: {prediction.elsewhere}", err=True)
    for line in prediction.extrapolated():
        say(line, err=True)
