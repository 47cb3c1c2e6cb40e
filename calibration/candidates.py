"""The candidates of CFQP: whose ranges the tensors get. The integer models made of them are then compared.

1. tamed, pinned: ranges of patches whose float output is in the nominal range, by less contrast where needed.
2. natural, pinned: ranges of the patches as they are.
3. natural, percentile, pinned: the same, 99.999 % of the values. And 99.99 % of them.
4. natural, least error, pinned: the same, by the squared error of all values.
5. natural, clipped: the network keeps its clip; what stands before it has its natural range.
6. in range only, pinned: the negative control. It never sees strong edges, and must not be chosen.
7. the best of these, trunks in float: the sums of its trunks are not rounded. Of networks that no format has
   in integers alone in any case.

Activations of 16 bits need nothing cut off: of 2 to 4 there is only the first then.

In all but 5 the input, the output, and whatever moves their values about are pinned to the nominal range, so
the saturation of the output's quantizer is the clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from qnas.calibration.patches.patches import Patches
from qnas.calibration.patches.taming import Taming
from qnas.calibration.prepare.clip_free import TerminalClip
from qnas.calibration.prepare.float_model import FloatModel, activations
from qnas.calibration.progress import Wrap
from qnas.calibration.ptq.float_graph import FloatGraph
from qnas.calibration.ptq.grids import plan_grids
from qnas.calibration.ptq.integer_model import PtqOptions, plan_layers
from qnas.calibration.ptq.qdq_writer import WEIGHTED
from qnas.calibration.ptq.trunks import trunks
from qnas.calibration.ranges.collection import collect
from qnas.calibration.ranges.histogram import Histogram
from qnas.calibration.ranges.range_rules import RULES, percentile
from qnas.calibration.ranges.ranges import Range
from qnas.images.evaluation import Batch
from qnas.onnx.operations import ELEMENTWISE

TAMED = "tamed, pinned"
NATURAL = "natural, pinned"
PERCENTILE = "natural, percentile, pinned"
NARROWER = "natural, percentile 99.99, pinned"
LEAST_ERROR = "natural, least error, pinned"
CLIPPED = "natural, clipped"
CONTROL = "in range only, pinned"

CLIP_WORTH = 0.3  # dB: a clip costs time in every image, and less than that is not seen
TRUNK_WORTH = 0.2  # dB: sums in float take longer
NARROW_WORTH = 0.1  # dB: other images hold larger values than the patches that make the scores

Seen = Mapping[str, Histogram]


@dataclass(frozen=True, eq=False)
class Candidate:
    """`ranges` of every activation of `network`, which `options` make integers of.

    `handicap` dB are taken off its score: so much it has to be better than the others by.
    """

    name: str
    network: FloatModel
    ranges: Mapping[str, Range]
    options: PtqOptions
    eligible: bool = True
    handicap: float = 0.0


@dataclass(frozen=True, eq=False)
class Watched:
    """Histograms of each tensor: of patches in range, of the other ones, and of these tamed.

    They merge exactly, so no patch is run twice for what two candidates both see. `clipped`: of the network
    with its clip, those tensors that are not what they are without it.
    """

    in_range: Seen
    offending: Seen
    offending_tamed: Seen
    clipped: Seen

    @property
    def natural(self) -> Seen:
        """The ranges of all patches as they are."""
        return merged(self.in_range, self.offending)

    @property
    def tamed(self) -> Seen:
        """The ranges of the patches in range and of the tamed ones; the dropped ones are in none."""
        return merged(self.in_range, self.offending_tamed)


def watch(
    network: FloatModel, original: FloatModel, patches: Patches, taming: Taming, threads: int = 1,
    wrap: Wrap = iter,
) -> Watched:  # fmt: skip
    """Watch every tensor of the clip-free `network` once with each patch, and with the tamed ones once more.

    And of the `original` the end, once, where it is not the same network.
    """
    names = activations(network)
    images_of = set(pinned(network))
    end = [name for name in activations(original) if name not in names or name in images_of]
    untouched = [contrast == 1 for contrast in taming.contrasts]
    rest = Taming(tuple(a for a in taming.contrasts if a != 1), taming.minimum)

    def seen(count: int, batches: Iterable[Batch]) -> Seen:
        if not count:
            return {}
        return cast(Seen, collect(network, wrap(batches), names, Histogram, threads))

    def seen_clipped() -> Seen:
        if original is network:
            return {}
        return cast(Seen, collect(original, wrap(patches.batches()), end, Histogram, threads))

    inside, offending = patches.part(untouched), patches.part(not each for each in untouched)
    return Watched(
        in_range=seen(len(inside), inside.batches()),
        offending=seen(len(offending), offending.batches()),
        offending_tamed=seen(rest.counts.tamed, rest.tamed(offending.batches())),
        clipped=seen_clipped(),
    )


def merged(*parts: Seen) -> Seen:
    """The histograms of all values of `parts`, tensor by tensor."""
    whole: dict[str, Histogram] = {}
    for histograms in parts:
        for name, histogram in histograms.items():
            whole.setdefault(name, Histogram()).merge(histogram)
    return whole


def candidates(
    network: FloatModel, original: FloatModel, clip: TerminalClip, watched: Watched, observer: str,
    options: PtqOptions,
) -> tuple[Candidate, ...]:  # fmt: skip
    """Those that there are, in the order in which ties go. `network` is `original` without its `clip`.

    Without a patch that could be tamed there is no first one, without a clip no fifth, and without patches
    both in range and out of it no control.
    """
    natural, tamed = watched.natural, watched.tamed
    rule = RULES[observer]
    pins = dict.fromkeys(pinned(network), Range(0.0, network.white))

    def made(name: str, seen: Seen, by: Callable[[Histogram], Range]) -> Candidate:
        return Candidate(name, network, ranges_of(seen, by) | pins, options)

    found = []
    if tamed:
        found.append(made(TAMED, tamed, rule))
    found.append(made(NATURAL, natural, rule))
    if not options.wide:
        found += [
            made(PERCENTILE, natural, RULES["percentile"]),
            replace(made(NARROWER, natural, partial(percentile, percent=99.99)), handicap=NARROW_WORTH),
            made(LEAST_ERROR, natural, RULES["mse"]),
        ]
    if clip.nodes:
        seen = {**natural, **watched.clipped}
        kept = replace(options, kept_clips=clip.nodes)
        ends = dict.fromkeys(pinned(original, clip.nodes), Range(0.0, original.white))
        found.append(Candidate(CLIPPED, original, ranges_of(seen, rule) | ends, kept, handicap=CLIP_WORTH))
    if watched.in_range and watched.offending:
        found.append(replace(made(CONTROL, watched.in_range, rule), eligible=False))
    return tuple(found)


def with_trunks_in_float(best: Candidate) -> Candidate | None:
    """The seventh; None where there are no trunks, or an integer network could have all operations."""
    plan = plan_layers(best.network, best.options)
    floats = [node for node in plan.graph.nodes if node.name in {*plan.layers} - plan.integer]
    sums = tuple(name for trunk in trunks(plan) for name in trunk)
    if not sums or all(node.op_type in ELEMENTWISE | WEIGHTED for node in floats):
        return None
    options = replace(best.options, float_layers=(*best.options.float_layers, *sums))
    handicap = best.handicap + TRUNK_WORTH
    return replace(best, name=f"{best.name}, trunks in float", options=options, handicap=handicap)


def ranges_of(seen: Seen, rule: Callable[[Histogram], Range]) -> dict[str, Range]:
    """The range of each tensor."""
    return {name: rule(histogram) for name, histogram in seen.items()}


def pinned(network: FloatModel, kept_clips: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The input, the output, and the tensors that share their grid: all of them have the nominal range."""
    graph = FloatGraph(network, frozenset(kept_clips))
    groups = plan_grids(graph, dict.fromkeys(graph.floats, Range(0.0, 1.0))).groups
    images = {groups.of(network.input), groups.of(network.output)}
    return tuple(name for name in activations(network) if groups.of(name) in images)
