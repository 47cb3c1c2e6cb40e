"""qnas-finetune: a calibrated float network and photographs -> an integer model that was trained as it is."""

from pathlib import Path
from typing import Any

import click

from qnas.cli import QnasCommand, say

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(1, 2**31 - 1)


@click.command(cls=QnasCommand)
@click.argument("model", type=PATH)
@click.option("--calibration", type=PATH, required=True, help="What qnas-calibrate wrote of MODEL.")
@click.option("--data", multiple=True, type=PATH, required=True, help="Folder of HR photographs; repeatable.")
@click.option("-o", "--output", type=PATH, help="Default: MODEL with the ending .finetuned.onnx.")
@click.option("--weight-bits", type=click.Choice([4, 8]), help="Default: those of the calibration.")
@click.option(
    "--activation-bits", type=click.Choice([4, 8]),
    help="Of what convolutions read. Default, and 8: those of the calibration.",
)  # fmt: skip
@click.option("--all-layers", is_flag=True, help="Give the first and the last convolutions these bits too.")
@click.option("--steps", default=2000, show_default=True, type=COUNT)
@click.option("--batch", default=8, show_default=True, type=COUNT)
@click.option("--patch", default=32, show_default=True, type=COUNT, help="Side of a crop, LR pixels.")
@click.option("--lr", default=1e-2, show_default=True, type=click.FloatRange(0, 1, min_open=True))
@click.option(
    "--labels", default=0.0, show_default=True, type=click.FloatRange(0, 1),
    help="Share of the photographs in what is learned; the rest is what MODEL makes of them.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**62))
@click.option("--threads", default=0, show_default=True, type=click.IntRange(0), help="0: all cores.")
@click.option("--device", help="cpu, cuda, ... Default: a GPU where there is one.")
@click.option("--cache-mib", default=1024, show_default=True, type=COUNT, help="Bound of decoded pixels.")
@click.option("--resume", is_flag=True, help="Continue the interrupted run of OUTPUT.")
@click.option("--force", is_flag=True, help="Replace OUTPUT, and an interrupted run of it.")
def main(
    model: Path, calibration: Path, data: tuple[Path, ...], output: Path | None, weight_bits: int | None,
    activation_bits: int | None, all_layers: bool, labels: float, lr: float, threads: int, device: str | None,
    resume: bool, force: bool, **recipe: Any,
) -> None:  # fmt: skip
    """Tune the integers of the float network MODEL until they compute what it does.

    It learns from MODEL itself, so that photographs need no labels. OUTPUT is a QDQ model, which
    `qnas-export OUTPUT` writes for every runtime, exactly as it was trained. The state of the run lives in
    OUTPUT.run while it lasts: after Ctrl-C, or a kill, add --resume.
    """
    from qnas.calibration.progress import bars
    from qnas.finetuning.finetune_run import finetune
    from qnas.finetuning.train import wanted_recipe

    wanted = wanted_recipe(
        data, weight_bits, activation_bits, all_layers, learning_rate=lr, label_weight=labels, **recipe
    )  # fmt: skip
    target = output or model.with_suffix(".finetuned.onnx")
    with bars() as display:
        done = finetune(
            model, calibration, wanted, target, threads=threads, device=device, resume=resume, force=force,
            display=display,
        )  # fmt: skip
    for note in done.notes:
        say(note, err=True)
    say(f"against {model.name} on other crops: {done.before:.2f} dB before, {done.after:.2f} dB after")
    say(f"wrote {done.output} ({done.output.stat().st_size} bytes)")
