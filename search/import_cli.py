"""qnas-import: a checkpoint of QuantNAS' released code -> found.pt."""

from pathlib import Path

import click

from qnas.cli import QnasCommand, say

PATH = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.argument("checkpoint", type=PATH)
@click.option("--genotype", required=True, type=PATH, help="Its .gen file.")
@click.option("-o", "--output", type=PATH, default=Path("found.pt"), show_default=True)
@click.option("--deployable", type=PATH, help="Also write the architecture that can be exported, as JSON.")
@click.option("--force", is_flag=True, help="Replace existing files.")
def main(checkpoint: Path, genotype: Path, output: Path, deployable: Path | None, force: bool) -> None:
    """Import CHECKPOINT (a .pth.tar of QuantNAS' released code, RFDN space) as a found.pt.

    It computes what the released code does, much of it in float. For integers train its deployable twin:
    qnas-train ARCH.json --warm-start found.pt, with the ARCH.json of --deployable.
    """
    from qnas.search.imports import paper_import
    from qnas.search.training import train_run as run

    found = paper_import.import_files(checkpoint, genotype, output, deployable, force)
    a = found.architecture
    say(f"wrote {output}: {a.channels} channels, {a.blocks} blocks, x{a.scale}, {a.normalization}")
    if deployable:
        say(f"wrote {deployable}: train it with --warm-start {output}")
    say(run.cost_line(a), err=True)
