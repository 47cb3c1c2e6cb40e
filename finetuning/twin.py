"""The differentiable twin of an integer network: `eval()` computes its integers, to the bit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qnas.finetuning.grids import Groups
from qnas.finetuning.operations import FORMS, Steps
from qnas.finetuning.parameters import GridScale, TrainedConv
from qnas.integer.network import IntegerNetwork, form_of, refuse_image_gains
from qnas.integer.nodes import ImageInput, IntegerNode


class Twin(nn.Module):
    """`network` with what is trained of it.

    `real`: the weights [O, I / groups, kh, kw] of the convolutions that are trained, before rounding.
    `grids`: the tensors whose scale is trained, with that of all on the same grid. Raises ModelError for a
    network with a node that has no gradient.
    """

    def __init__(
        self, network: IntegerNetwork, real: Mapping[str, NDArray[np.float32]], grids: Collection[str] = ()
    ) -> None:
        super().__init__()
        refuse_image_gains(network, "fine-tuning")
        for node in network.nodes[1:]:
            form_of(node, FORMS, "fine-tuning")
        self.start, groups = network, Groups.of(network).first
        self.group = {node.name: groups[node.name] for node in network.nodes}
        named = network.by_name()
        trained = dict.fromkeys(self.group[name] for name in grids)
        self.scale_of = {group: index for index, group in enumerate(trained)}
        self.scales = nn.ModuleList(GridScale(named[group].output) for group in trained)
        convolutions = [(node, read) for node, read in network.convolutions() if node.name in real]
        self.conv_of = {node.name: index for index, (node, _) in enumerate(convolutions)}
        self.convolutions = nn.ModuleList(
            TrainedConv(node, read.output, real[node.name]) for node, read in convolutions
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Grey levels float [N, C, H, W] -> those of the upscaled images, whole and 0..255."""
        values: dict[str, Steps] = {}
        scales = self._scales()
        last_use = {source: node.name for node in self.start.nodes for source in node.inputs}
        for node in self.start.nodes:
            reads = [values[name] for name in node.inputs]
            scale = self._scale(node, scales, pixels.device)
            x = pixels if self.training else pixels.double()
            if isinstance(node, ImageInput):
                steps = x - node.output.zero_point
            else:
                steps = FORMS[type(node)](node, reads, scale, self._own(node.name))
            values[node.name] = Steps(steps, scale, node.output)
            for name in node.inputs:
                if last_use[name] == node.name:
                    values.pop(name, None)
        return steps + node.output.zero_point

    @torch.no_grad()
    def network(self) -> IntegerNetwork:
        """The integer network that it is now."""
        scales = self._scales()
        nodes: dict[str, IntegerNode] = {}
        for node in self.start.nodes:
            grid = replace(node.output, scale=self._scale(node, scales).cpu().numpy())
            own = self._own(node.name)
            if own is not None:
                node = own.trained(self._scale(nodes[node.inputs[0]], scales))
            nodes[node.name] = replace(node, output=grid)
        return replace(self.start, nodes=tuple(nodes.values()))

    def _own(self, name: str) -> TrainedConv | None:
        index = self.conv_of.get(name)
        return None if index is None else self.convolutions[index]  # type: ignore[return-value]

    def _scales(self) -> list[Tensor]:
        return [each() for each in self.scales]

    def _scale(self, node: IntegerNode, scales: list[Tensor], device: torch.device | None = None) -> Tensor:
        """That of what `node` writes, float32 []."""
        index = self.scale_of.get(self.group[node.name])
        return torch.tensor(float(node.output.scale), device=device) if index is None else scales[index]
