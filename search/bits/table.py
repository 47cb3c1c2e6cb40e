"""What `qnas-search bits` shows: what each layer costs and loses, its bits, and how good the mixes are."""

import math

from rich.box import SIMPLE_HEAD
from rich.table import Table

from qnas.cost.allocation import EIGHT, UNIT_NAMES, Bits, BitsReport, Choices, LayerChoice
from qnas.images.quality import psnr_of
from qnas.terminal import stdout

WIDTH = 110


def show_bits(report: BitsReport) -> None:
    """Print the layers, and then the mixes."""
    console = stdout(WIDTH)
    console.print(_layers(report))
    console.print(_mixes(report))


def _layers(report: BitsReport) -> Table:
    choices = report.choices
    table = Table("layer", box=SIMPLE_HEAD, title="Layers; PSNR with one alone in fewer bits")
    others = dict.fromkeys(bits for layer in choices.layers for bits in layer.costs if bits != EIGHT)
    for name in (f"share of {UNIT_NAMES[choices.unit]}", *(f"{bits} alone" for bits in others)):
        table.add_column(name, justify="right")
    for mix in report.mixes:
        table.add_column(mix.allocation.budget.text, justify="right")
    for layer in choices.layers:
        table.add_row(
            layer.name,
            f"{layer.costs[EIGHT] / choices.eight_bits:.1%}",
            *(_alone(choices, layer, bits) for bits in others),
            *(mix.allocation.bits[layer.name] for mix in report.mixes),
        )
    return table


def _alone(choices: Choices, layer: LayerChoice, bits: Bits) -> str:
    return _decibels(psnr_of(choices.error + layer.errors[bits])) if bits in layer.errors else "-"


def _mixes(report: BitsReport) -> Table:
    choices = report.choices
    table = Table("budget", box=SIMPLE_HEAD, title="PSNR against full precision, on images held out")
    for name in (UNIT_NAMES[choices.unit], "of 8 bits", "predicted", "measured"):
        table.add_column(name, justify="right")
    table.add_row("8 bits", choices.words(choices.eight_bits), "100.0%", "", _decibels(report.eight_bits))
    for mix in report.mixes:
        cost = mix.allocation.cost
        table.add_row(
            mix.allocation.budget.text, choices.words(cost), f"{cost / choices.eight_bits:.1%}",
            _decibels(mix.predicted), _decibels(mix.measured),
        )  # fmt: skip
    return table


def _decibels(psnr: float) -> str:
    return "no difference" if math.isinf(psnr) else f"{psnr:.2f} dB"
