"""The command `qnas`: all the others as its subcommands."""

import click

from qnas import __version__
from qnas.cli import LazyGroup

COMMANDS = {
    "search": ("qnas.search.search_cli", "Search a mixed-precision network, or many."),
    "train": ("qnas.search.train_cli", "Train a network that was searched or is named."),
    "import": ("qnas.search.import_cli", "Read a checkpoint of QuantNAS' released code."),
    "calibrate": ("qnas.calibration.cli", "Find integer ranges for a float network, ONNX or TFLite."),
    "finetune": (
        "qnas.finetuning.cli",
        "Train the integers of a calibrated network until it is near to its float self.",
    ),
    "export": ("qnas.export.cli", "Write a network as QDQ ONNX or TFLite of exact integers."),
    "inspect": ("qnas.export.inspect_cli", "Show layers, bits and costs of a network."),
    "bench": ("qnas.runtime_bench.cli", "Measure latency, gate on it, count costs, predict."),
    "evaluate": ("qnas.runtime_bench.evaluate_cli", "Score models on images: PSNR and SSIM."),
    "upscale": ("qnas.runtime_bench.upscale_cli", "Upscale images, folders and videos."),
    "doctor": ("qnas.runtime_bench.doctor_cli", "Say what is installed and works here, and what is missing."),
}


@click.group(cls=LazyGroup, modules=COMMANDS, no_args_is_help=True)
@click.version_option(__version__, prog_name="qnas")
def main() -> None:
    """Search, calibrate, export and measure exact integer networks for super-resolution.

    Each command stands alone too: `qnas export` is `qnas-export`.
    """
