"""One calibration: read, strip the clip, choose patches, tame, observe, compare, decide."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from onnx import ModelProto

from qnas.calibration.candidates import (
    NATURAL,
    Candidate,
    Watched,
    candidates,
    pinned,
    ranges_of,
    watch,
    with_trunks_in_float,
)
from qnas.calibration.document import Calibration, Kept, Score, Wide, read_calibration, source_of
from qnas.calibration.judge import Judge, OneByOne
from qnas.calibration.patches import manifest
from qnas.calibration.patches.patch_size import default_side
from qnas.calibration.patches.patches import Patches
from qnas.calibration.patches.representative import COUNT, RepresentativeSet, representative_set
from qnas.calibration.patches.taming import Taming, tame
from qnas.calibration.prepare.clip_free import without_clip
from qnas.calibration.prepare.float_model import FloatModel, Runner, activations, read_float_model
from qnas.calibration.prepare.sr_shape import InputRange
from qnas.calibration.progress import Display, Passing
from qnas.calibration.ptq import weights as weights_document
from qnas.calibration.ptq.equalization import equalized, find_equalization
from qnas.calibration.ptq.grids import Grids, plan_grids
from qnas.calibration.ptq.integer_model import PtqOptions, fitted_weights, plan_layers, quantized
from qnas.calibration.ptq.weights import IntegerWeights, WeightBits
from qnas.calibration.ranges.histogram import min_max
from qnas.calibration.ranges.ranges import Range
from qnas.calibration.sensitivity import fallback
from qnas.calibration.widening import Widening, said_of, widened
from qnas.errors import CalibrationError, ImageError, UsageError
from qnas.images.files import passed_over
from qnas.onnx.cost import model_cost

Weights = Mapping[str, IntegerWeights]
Before = Callable[[FloatModel, PtqOptions], None]
HELD_OUT = 0.25  # of the patches: they make the scores
PASS_MACS = 1.2e12  # of one pass over all patches, where nobody said how many: minutes for all passes
LEAST_COUNT = 64
INPUT_RANGES: dict[float, InputRange] = {1.0: "0..1", 255.0: "0..255"}


@dataclass(frozen=True)
class Settings:
    """What `qnas-calibrate` was told.

    `patch`: side in pixels of the network's input, None for 96, or less where the images are small, or what
    a network of one size takes. `count`: patches, None for 256 and at least one of each image, fewer where
    the network is large. `hr`: the images are high resolution. `crops_of`: a calibration.json whose patches
    are taken again. `observer`: of `range_rules.RULES`, how ranges come of values. `float_layers`: names,
    with * and ?, of those that stay float. `activation_bits`: (8,), (16,), or (8, 16): 16 where a `target`, a
    fidelity in dB, takes it. `fallback`: how many of the most sensitive layers or trunks do stay float as
    well; without (8, 16) as many as the `target` takes. `threads`: 0 for one per core.
    """

    patch: int | None = None
    count: int | None = None
    seed: int = 0
    hr: bool = False
    crops_of: Path | None = None
    input_range: InputRange | None = None
    observer: str = "min-max"
    weight_bits: WeightBits = 8
    activation_bits: tuple[int, ...] = (8,)
    float_layers: tuple[str, ...] = ()
    fallback: int | None = None
    target: float | None = None
    threads: int = 0


@dataclass(frozen=True, eq=False)
class Run:
    """A calibration and what led to it. `patches` made the ranges, `judge.images` the scores."""

    calibration: Calibration
    network: FloatModel
    patches: Patches
    taming: Taming
    watched: Watched
    weights: Weights
    judge: Judge
    found: tuple[Candidate, ...]
    notices: tuple[str, ...]

    @property
    def model(self) -> ModelProto:
        """The integer model that was chosen."""
        return quantized(self.best.network, self.calibration.ranges, self.calibration.options, self.weights)

    @property
    def images(self) -> RepresentativeSet:
        """Whose ranges the tensors have."""
        return self.patches.images

    @property
    def best(self) -> Candidate:
        """The candidate that was chosen."""
        return next(each for each in self.found if each.name == self.calibration.chosen)

    @property
    def grids(self) -> Grids:
        """The grids of its tensors."""
        return _grids(self.best.network, self.calibration.ranges, self.calibration.options)


def calibrate(
    path: Path, images: Sequence[Path], settings: Settings = Settings(), display: Display | None = None
) -> Calibration:
    """Find the ranges with which the float network at `path` loses least as an integer model.

    `images`: files and folders. Raises QnasError. Equal inputs give equal results, on any number of threads.
    """
    return run(path, images, settings, display).calibration


def quantized_model(path: Path, calibration: Calibration) -> ModelProto:
    """The integer model that `calibration` chose, made again of the float network at `path`.

    Raises CalibrationError when the file is not the one that was calibrated.
    """
    _, network = calibrated_network(path, calibration)
    weights = weights_document.from_document(calibration.weights, "the calibration")
    return quantized(network, calibration.ranges, calibration.options, weights)


def calibrated_network(path: Path, calibration: Calibration) -> tuple[FloatModel, FloatModel]:
    """The float network at `path` as it was judged, with its clip, and as its integers are made, without one
    that is not kept. Raises CalibrationError when the file is not the one that was calibrated."""
    source = calibration.source
    original = read_float_model(path, INPUT_RANGES.get(source.white))
    if original.sha256 != source.sha256:
        raise CalibrationError(
            f"the calibration is that of {source.name} with the SHA-256 {source.sha256[:12]}..., and {path} "
            f"has {original.sha256[:12]}...: calibrate {path.name} with qnas-calibrate"
        )
    original = equalized(original, calibration.equalized)
    return original, original if calibration.options.kept_clips else without_clip(original)[0]


def run(
    path: Path, images: Sequence[Path], settings: Settings = Settings(), display: Display | None = None,
    before: Before | None = None,
) -> Run:  # fmt: skip
    """`calibrate`, with all that a report shows. `before` may look at the network before any image is."""
    shown, threads = display or Display(), settings.threads or os.cpu_count() or 1
    given = read_float_model(path, settings.input_range)
    options = first_options(given, settings)
    if before is not None:
        before(given, options)
    chosen = _chosen(given, images, settings, shown)
    mine, held_out = chosen.split(HELD_OUT)
    count = len(mine.crops)
    patches = Patches.of(mine, Passing(shown, "cutting patches", count))
    original = equalized(given, even := find_equalization(given, patches.batches()))
    network, clip = without_clip(original)
    taming, watched = _watched(network, original, patches, count, threads, shown)
    found = candidates(network, original, clip, watched, settings.observer, options)
    judge = Judge(original, held_out, threads)
    natural = next(each.ranges for each in found if each.name == NATURAL)
    weights = fitted_weights(network, natural, options, patches.batches(), threads)
    found, scores = _compared(found, weights, judge, shown)
    best, widening = _widened(best_of(found, scores), watched, weights, patches, judge, settings, shown)
    options, fallen = _fallback(best, weights, patches, judge, settings, shown)
    calibration = Calibration(
        source=source_of(original, clip),
        chosen=best.name,
        observer=settings.observer,
        scores=scores,
        options=options,
        fallback=fallen,
        taming=taming.counts,
        pinned=pinned(best.network, best.options.kept_clips),
        ranges=best.ranges,
        bits=_bits(_grids(best.network, best.ranges, options), best.ranges),
        widening=None if widening is None else Wide(widening.psnr, widening.tensors),
        held_out=HELD_OUT,
        manifest=manifest.to_document(chosen),
        weights=weights_document.to_document(weights),
        equalized=even,
    )
    notices = (
        *_told_of_images(original, images, chosen, mine, held_out),
        *taming.notices(),
        *said_of(widening),
        *_notices(calibration, settings),
    )
    return Run(calibration, network, patches, taming, watched, weights, judge, found, notices)


def _watched(
    network: FloatModel, original: FloatModel, patches: Patches, count: int, threads: int, display: Display
) -> tuple[Taming, Watched]:
    """The contrast of each of `count` patches, and what the tensors hold on them."""
    shrunk = Passing(display, "taming patches", count)(patches.batches())
    taming = tame(shrunk, OneByOne(Runner(network), threads))
    passes = count * (1 if network is original else 2) + taming.counts.tamed
    watching = Passing(display, "watching tensors", passes)
    return taming, watch(network, original, patches, taming, threads, watching)


def first_options(network: FloatModel, settings: Settings) -> PtqOptions:
    """How a network becomes integers before any image was looked at. Raises UsageError where settings leave
    open what they have to say."""
    if len(settings.activation_bits) > 1 and settings.target is None:
        raise UsageError(
            "--activation-bits 8,16 gives 16 bits to what a target takes: name it with --target-fidelity"
        )
    kept = _float_layers(without_clip(network)[0], settings.float_layers)
    wide = activations(network) if settings.activation_bits == (16,) else ()
    return PtqOptions(weight_bits=settings.weight_bits, float_layers=kept, wide=wide)


def _of_images(network: FloatModel, images: Sequence[Path]) -> tuple[str, ...]:
    """What there is to say about the images before any is read."""
    said = [sentence for path in images if path.is_dir() for sentence in passed_over(path)]
    if network.scale == 1:
        said.append("it restores images: calibrate with such as it is for, noisy ones for a denoiser")
    return tuple(said)


def _chosen(
    network: FloatModel, images: Sequence[Path], settings: Settings, display: Display
) -> RepresentativeSet:
    if settings.crops_of is not None:
        return _taken_again(network, images, settings, settings.crops_of)
    patch = _patch(network, images, settings)
    chosen = representative_set(
        images, patch, settings.count or _count(network, patch), settings.seed,
        hr_scale=network.scale if settings.hr else None, channels=3 if network.channels == 3 else 1,
        progress=display.step("reading images"),
    )  # fmt: skip
    if len(chosen.files) == 1 and chosen.skipped:
        skipped = "; ".join(chosen.notices())
        raise ImageError(
            f"{chosen.files[0]} alone can be used, and two images are needed: {skipped}: name others"
        )
    return chosen


def _taken_again(
    network: FloatModel, images: Sequence[Path], settings: Settings, source: Path
) -> RepresentativeSet:
    """The patches of another calibration. Raises UsageError where they do not fit, ImageError if changed."""
    given = {"--patch": settings.patch, "--count": settings.count, "--hr": settings.hr or None}
    if extra := [name for name, value in given.items() if value is not None]:
        raise UsageError(f"--crops-of says which patches: leave {extra[0]} out")
    if len(images) != 1 or not images[0].is_dir():
        raise UsageError("--crops-of names files of one folder: give that folder alone as IMAGES")
    chosen = manifest.from_document(read_calibration(source).manifest, str(source), images[0])
    height, width = chosen.patch
    fits = chosen.channels == network.channels and chosen.hr_scale in (None, network.scale)
    if not fits or network.size not in (None, chosen.patch):
        raise UsageError(
            f"{source} has patches {width}x{height} of {chosen.channels} channels, shrunken "
            f"{chosen.hr_scale or 1} times, and {network.name} takes others: leave --crops-of out"
        )
    return chosen


def _compared(
    found: tuple[Candidate, ...], weights: Weights, judge: Judge, display: Display
) -> tuple[tuple[Candidate, ...], tuple[Score, ...]]:
    """The candidates and one that is made of the best of them, if any is; and the score of each."""
    scores = _scores(found, weights, judge, display)
    last = with_trunks_in_float(best_of(found, scores))
    if last is None:
        return found, scores
    return (*found, last), (*scores, *_scores([last], weights, judge, display))


def _scores(
    found: Sequence[Candidate], weights: Weights, judge: Judge, display: Display
) -> tuple[Score, ...]:
    passing = Passing(display, "comparing", len(found) * len(judge.images.crops))
    scores = []
    for each in found:
        model = quantized(each.network, each.ranges, each.options, weights)
        scores.append(Score(each.name, judge.psnr(model, passing), each.eligible))
    return tuple(scores)


def _fallback(
    best: Candidate, weights: Weights, patches: Patches, judge: Judge, settings: Settings, display: Display
) -> tuple[PtqOptions, tuple[Kept, ...]]:
    """Options with those layers in float that were asked for, and what each of them brought and cost."""
    if settings.fallback is None and (settings.target is None or len(settings.activation_bits) > 1):
        return best.options, ()
    display.step("trying layers in float")
    options, steps = fallback(
        best.network, best.ranges, best.options, patches.batches(), judge.psnr, settings.fallback,
        settings.target, weights,
    )  # fmt: skip
    return options, tuple(Kept(each.layer, each.score, each.macs, each.bytes) for each in steps)


def _widened(
    best: Candidate, watched: Watched, weights: Weights, patches: Patches, judge: Judge, settings: Settings,
    display: Display,
) -> tuple[Candidate, Widening | None]:  # fmt: skip
    """`best` with 16 bits where the settings leave them to the target and it takes them; what they bring."""
    if len(settings.activation_bits) < 2 or settings.target is None:
        return best, None
    display.step("trying tensors in 16 bits")
    natural = ranges_of({**watched.natural, **watched.clipped}, min_max)
    found = widened(
        best.network, best.ranges, natural, best.options, patches.batches(), judge.psnr, settings.target,
        weights,
    )  # fmt: skip
    return replace(best, options=found.options, ranges=found.ranges), found


def _grids(network: FloatModel, ranges: Mapping[str, Range], options: PtqOptions) -> Grids:
    return plan_grids(plan_layers(network, options).graph, ranges, options.wide)


def _bits(grids: Grids, names: Iterable[str]) -> dict[str, int]:
    """The bits of each tensor that has a grid."""
    return {name: grids.of(name).container for name in names if name in grids}


def _told_of_images(
    network: FloatModel,
    images: Sequence[Path],
    chosen: RepresentativeSet,
    mine: RepresentativeSet,
    held_out: RepresentativeSet,
) -> tuple[str, ...]:
    """What there is to say about the images and how they are read."""
    size = f"{mine.patch[1]}x{mine.patch[0]}"
    used = f"{len(mine.crops)} patches of {size} made the ranges, {len(held_out.crops)} the scores"
    return (*network.remarks, network.white_found, used, *_of_images(network, images), *chosen.notices())


def _float_layers(network: FloatModel, wanted: Sequence[str]) -> tuple[str, ...]:
    """The layers that one of the patterns `wanted` names. Raises UsageError where one names none."""
    layers = plan_layers(network, PtqOptions()).layers if wanted else ()
    for pattern in wanted:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            near = get_close_matches(pattern, layers, n=3, cutoff=0.0)
            raise UsageError(
                f"--float-layer {pattern}: {network.name} has no such layer, name one like {', '.join(near)}"
            )
    return tuple(layer for layer in layers if any(fnmatchcase(layer, pattern) for pattern in wanted))


def _notices(calibration: Calibration, settings: Settings) -> tuple[str, ...]:
    """What there is to say about the clip and the layers in float."""
    kept, target = calibration.fallback, settings.target
    missed = target is not None and calibration.fidelity < target
    return (
        calibration.source.clip.explanation,
        *(
            [f"{len(kept)} layers left in float: {sum(each.macs for each in kept):.1%} of the MACs"]
            if kept
            else []
        ),
        *([f"--target-fidelity {target:g} is not reached: {calibration.fidelity:.2f} dB"] if missed else []),
    )


def best_of(found: Sequence[Candidate], scores: Sequence[Score]) -> Candidate:
    """The eligible one of the highest score less its handicap, the first of equals."""
    worth = {i: score.psnr - found[i].handicap for i, score in enumerate(scores) if score.eligible}
    return found[max(worth, key=lambda i: worth[i])]


def _count(network: FloatModel, patch: int | tuple[int, int]) -> int | None:
    """How many patches a network of many MACs is shown, so that calibration takes minutes; else None."""
    height, width = (patch, patch) if isinstance(patch, int) else patch
    layers = model_cost(network.model, {network.input: network.shape(height, width)}).layers
    macs = sum(layer.macs for layer in layers)
    return None if macs * COUNT <= PASS_MACS else max(LEAST_COUNT, int(PASS_MACS / macs))


def _patch(network: FloatModel, images: Sequence[Path], settings: Settings) -> int | tuple[int, int]:
    """The size of patches: a network of one size has no choice."""
    if network.size is None:
        return settings.patch or default_side(images, network.scale if settings.hr else 1)
    if settings.patch is not None and network.size != (settings.patch, settings.patch):
        height, width = network.size
        raise UsageError(f"{network.name} takes images of {width}x{height} alone: leave --patch out")
    return network.size
