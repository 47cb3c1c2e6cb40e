"""`report.html` of a folder that `qnas-search` wrote: everything in one file, nothing from elsewhere."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from qnas.errors import UsageError
from qnas.files import check_outputs, write_file
from qnas.html_page import Markup, element, page
from qnas.images.files import read_image
from qnas.images.samples import sample_photographs
from qnas.search.report import colours, crops, drawing, sweep_page
from qnas.search.report.run_page import run_parts
from qnas.search.report.run_record import is_run, read_run
from qnas.search.report.sweep_record import SweepRecord, is_sweep, read_sweep

MOST_NETWORKS = 4  # in a row of crops


def write_report(folder: Path, output: Path, force: bool, images: Sequence[Path] = ()) -> None:
    """Write the page of a run or a sweep, as far as it has come; crops are of `images`, or of samples.

    The same files give the same bytes. Raises UsageError for a folder of neither, QnasError for files in it
    that are wrong and for images that cannot be read, OutputError.
    """
    record = (path for path in folder.rglob("*") if path.suffix != ".html" and path.is_file())
    check_outputs([output], force, chain(record, images))
    write_file(output, report(folder, images), force)


def report(folder: Path, images: Sequence[Path] = ()) -> str:
    """The page itself."""
    if is_sweep(folder):
        sweep = read_sweep(folder)
        title = f"Sweep {sweep.name}"
        parts = sweep_page.sweep_parts(sweep, _crops(_shown_networks(sweep), images))
    elif is_run(folder):
        run = read_run(folder)
        title = f"Search {run.name}"
        parts = run_parts(run, _crops({run.name: run.found} if run.found else {}, images))
    else:
        raise UsageError(f"{folder} holds no run and no sweep: name a folder that qnas-search wrote")
    return page(title, *parts, style=colours.STYLE + drawing.STYLE + crops.STYLE + sweep_page.STYLE + STYLE)


def _shown_networks(sweep: SweepRecord) -> dict[str, Path]:
    """The trained networks of the front, evenly through it; of all members where the front has none."""
    for members in (sweep_page.best(sweep), sweep.members):
        found = {each.name: each.run.found for each in members if each.run and each.run.found}
        if found:
            names = list(found)
            step = (len(names) - 1) / max(min(MOST_NETWORKS, len(names)) - 1, 1)
            kept = dict.fromkeys(round(index * step) for index in range(min(MOST_NETWORKS, len(names))))
            return {names[index]: found[names[index]] for index in kept}
    return {}


def _crops(found: Mapping[str, Path], images: Sequence[Path]) -> list[Markup]:
    if not found:
        return []
    parts = [element("h2", "Before and after"), element("p", CROPS, class_="soft")]
    try:
        named = [(path.name, read_image(path)) for path in images]
        photographs = named or sample_photographs()
    except UsageError as error:  # of the photographs at hand: nobody asked for them
        return [*parts, element("p", error, class_="warn")]
    return [*parts, crops.crops_section(found, photographs)]


CROPS = (
    "Each photograph was made small by bicubic and upscaled again. Shown is where bicubic is worst, with the "
    "PSNR-Y of that part."
)
STYLE = """
.plot { display: block; width: 100%; height: auto; }
.alphas, .curves, .fronts { display: grid; gap: .8rem; }
.alphas { grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)); }
.curves { grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
.fronts { grid-template-columns: repeat(auto-fit, minmax(min(34rem, 100%), 1fr)); }
.alphas p { color: var(--ink); }
details { border: 1px solid var(--line); border-radius: .5rem; padding: .4rem .9rem; margin: .6rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
details td:last-child { white-space: normal; overflow-wrap: anywhere; }
"""
