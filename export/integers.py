"""found.pt -> integer network."""

from qnas.errors import ModelError
from qnas.export.options import Adq
from qnas.export.trained import TrainedParameters
from qnas.integer.builder import build_network
from qnas.integer.network import IntegerNetwork
from qnas.network.architecture import Architecture
from qnas.torch.checkpoint import Found


def refuse_paper(architecture: Architecture) -> None:
    """Raise ModelError for a network that computes as the paper's released code does."""
    if architecture.arithmetic == "paper":
        raise ModelError(
            "an imported network computes in float between its convolutions: train the architecture that "
            "`qnas-import --deployable` writes, with --warm-start from this file, and export that"
        )


def integer_network(found: Found, adq: Adq = "frozen") -> IntegerNetwork:
    """The integers of a trained network. Raises ModelError naming the layer that is not on a grid, or whose
    sums may leave 32 bits, and when a network without ADQ is to have it per image."""
    refuse_paper(found.architecture)
    if adq == "per-image" and not found.network.deviations():
        raise ModelError(
            "--adq per-image needs a network with ADQ: this one has normalization "
            f"{found.architecture.normalization!r}, leave the option out"
        )
    parameters = TrainedParameters(found.network, per_image=adq == "per-image")
    return build_network(
        found.architecture.space, found.architecture.scale, found.network.layers, parameters
    )  # fmt: skip
