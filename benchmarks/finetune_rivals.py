"""What Brevitas makes of an ESPCN at the bits, crops, steps and loss of qnas-finetune; prints both.

python benchmarks/finetune_rivals.py espcn.onnx calibration.json --data ../shared/data [--activation-bits 4]

Runs in an environment that has Brevitas besides qnas. The network is `qnas.testing.sr_modules.espcn` as
`calibration_networks.py` trains it. Brevitas has its usual quantizers: weights with a learned scale for each
channel (a percentile or the maximum at first), activations with a learned one; its first and last layers
have 8 bits like ours. Both are trained at three rates, and the best on Set5 is the one that is told.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import click
import numpy as np
import onnx
import torch
from brevitas.quant import Int8WeightPerChannelFloat, Uint8ActPerTensorFloat
from onnx import numpy_helper
from torch import Tensor, nn

from qnas.calibration.document import read_calibration
from qnas.calibration.prepare.float_model import Runner, read_float_model
from qnas.finetuning.lessons import Lessons, lessons
from qnas.finetuning.start import at_bits, calibrated
from qnas.finetuning.train import begun, one_step, schedule, wanted_recipe
from qnas.finetuning.twin import Twin
from qnas.images.evaluation import Image, evaluate
from qnas.torch.environment import environment

TRAINING = ("BSDS200", "T91")
OUR_RATES, RATES = (5e-3, 1e-2, 2e-2), (3e-4, 1e-3, 3e-3)
CPU = torch.device("cpu")


class Rival(nn.Module):
    """ESPCN in Brevitas' layers, grey levels in and out."""

    def __init__(self, path: Path, activation_bits: int) -> None:
        super().__init__()
        stored = {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
        names = [name.removesuffix(".weight") for name in stored if name.endswith(".weight")]
        layers: list[nn.Module] = [
            qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True)
        ]
        for index, name in enumerate(names):
            weight, end = stored[f"{name}.weight"], index in (0, len(names) - 1)
            conv = qnn.QuantConv2d(
                weight.shape[1], weight.shape[0], weight.shape[2], padding=weight.shape[2] // 2,
                weight_quant=Int8WeightPerChannelFloat, weight_bit_width=8 if end else 4,
            )  # fmt: skip
            conv.weight.data = torch.tensor(weight)
            conv.bias.data = torch.tensor(stored[f"{name}.bias"])
            layers.append(conv)
            if index < len(names) - 1:
                bits = 8 if index == len(names) - 2 else activation_bits
                layers.append(qnn.QuantReLU(bit_width=bits, return_quant_tensor=True))
        self.layers, self.scale = nn.Sequential(*layers), int((len(stored[f"{name}.bias"]) // 3) ** 0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 3, s H, s W]."""
        made = self.layers(pixels / 255)
        values = made.value if hasattr(made, "value") else made
        return nn.functional.pixel_shuffle(values, self.scale) * 255


def upscaler(network: nn.Module) -> Any:
    """`network` as a function of uint8 images [H, W, 3]."""

    def upscale(image: Image) -> Image:
        network.eval()
        with torch.no_grad():
            made = network(torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32)))
        return made[0].round().clamp(0, 255).permute(1, 2, 0).numpy().astype(np.uint8)

    return upscale


def rival(path: Path, taught: Lessons, activation_bits: int, steps: int, rate: float) -> nn.Module:
    """Brevitas after so many steps on the crops of seed 0."""
    torch.manual_seed(0)
    network = Rival(path, activation_bits).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, steps)
        pixels, _ = taught.inputs(0, step)
        loss = nn.functional.mse_loss(network(pixels), taught.answers(pixels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("calibration", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--activation-bits", default=8, type=click.IntRange(4, 8))
@click.option("--steps", default=300, show_default=True)
def main(model: Path, calibration: Path, data: Path, activation_bits: int, steps: int) -> None:
    """Print PSNR-Y on Set14 of the float network, of ours and of Brevitas."""
    torch.set_num_threads(1)
    recipe = wanted_recipe([data / name for name in TRAINING], 4, activation_bits, False, steps=steps)
    teacher = read_float_model(model)
    taught = lessons(teacher, [Path(each) for each in recipe.data], recipe.batch, recipe.patch, 1024, 1)
    runner = Runner(teacher)

    def told(name: str, upscale: Any, seconds: float) -> None:
        found = evaluate(upscale, data / "Set14", teacher.scale).psnr
        click.echo(f"{name}: {found:.3f} dB, {seconds:.0f} s of the processor")

    told("float", lambda image: np.clip(np.rint(runner(image[None])[0]), 0, 255).astype(np.uint8), 0)
    images = taught.inputs(1, 0)[0].numpy().astype(np.uint8)
    begins = at_bits(
        calibrated(model, read_calibration(calibration)), recipe.bits, [each[None] for each in images]
    )

    def ours(rate: float) -> nn.Module:
        wanted = replace(recipe, learning_rate=rate)
        run = begun(wanted, Twin(begins.network, begins.real, begins.grids), {}, environment(CPU, 1))
        for _ in range(steps):
            one_step(run, taught, CPU)
        return run.twin

    def best(name: str, rates: tuple[float, ...], trained: Callable[[float], nn.Module]) -> None:
        tried = []
        for rate in rates:
            started = time.process_time()
            network = trained(rate)
            seconds = time.process_time() - started
            tried.append(
                (evaluate(upscaler(network), data / "Set5", teacher.scale).psnr, rate, network, seconds)
            )
        _, rate, network, seconds = max(tried, key=lambda each: each[0])
        told(f"{name}, rate {rate:g}", upscaler(network), seconds)

    best("qnas", OUR_RATES, ours)
    best("Brevitas", RATES, lambda rate: rival(model, taught, activation_bits, steps, rate))


if __name__ == "__main__":
    main()
