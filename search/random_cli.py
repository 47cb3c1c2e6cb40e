"""The command `qnas-search random`."""

from pathlib import Path

import click

from qnas.cli import QnasCommand, say

COUNT = click.IntRange(1)


# fmt: off
@click.command(cls=QnasCommand)
@click.option("--space", required=True, help="A named space, or a JSON or TOML file of one.")
@click.option("--bits", metavar="4,8", help="Of every layer.  [default: those of the space]")
@click.option("--channels", type=COUNT, help="In place of the space's own.")
@click.option("--blocks", type=COUNT, help="In place of the space's own.")
@click.option("--samples", default=8, show_default=True, type=COUNT, help="Architectures to draw.")
@click.option("--max-bitops", required=True, metavar="2.4G", help="The most; G is 10^9.")
@click.option("--min-bitops", metavar="2.0G", help="The least.  [default: 20 % below the most]")
@click.option("--image", default="32x32", show_default=True, metavar="HxW",
              help="LR pixels for which BitOps are counted.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--force", is_flag=True, help="Write into a folder that holds something.")
def main(
    space: str, bits: str | None, channels: int | None, blocks: int | None, samples: int, max_bitops: str,
    min_bitops: str | None, image: str, seed: int, output: Path, force: bool,
) -> None:
    # fmt: on
    """Draw architectures of a space with a given number of BitOps, each as likely as any other of them.

    Writes OUTPUT/0, OUTPUT/1, ... each with an arch.json for `qnas-train` and a result.json.
    """
    from qnas.search.runs.random_search import giga, parse_amount, random_architectures, write_random
    from qnas.search.runs.result import check_folder, image_cost
    from qnas.search.space.search_space import find_space
    from qnas.search.space.space_options import changed_space, parse_image

    check_folder(output, force)
    changes = {"bits": bits, "channels": channels, "blocks": blocks}
    given = {key: value for key, value in changes.items() if value is not None}
    searched = changed_space(find_space(space), given)
    size = parse_image(image)
    most = parse_amount("--max-bitops", max_bitops)
    least = None if min_bitops is None else parse_amount("--min-bitops", min_bitops)
    found = random_architectures(searched, samples, least, most, size, seed)
    write_random(output, found, searched.name, size, force)
    for index, architecture in enumerate(found):
        cost = image_cost(architecture, size)
        say(f"{output / str(index)}: {giga(cost.bitops)} BitOps, {cost.macs / 1e6:.2f} MMACs")
