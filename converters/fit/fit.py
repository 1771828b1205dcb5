"""Walks the family within a budget, and converts the winner."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgel3_tflm._version import __version__
from edgel3_tflm.converters.fit.baselines import find_baselines
from edgel3_tflm.converters.fit.budget import Budget
from edgel3_tflm.converters.fit.candidates import Candidate, Members, derive, find_reference
from edgel3_tflm.converters.fit.choice import (
    RULE_WITH_LABELS,
    RULE_WITHOUT_LABELS,
    Judged,
    choose,
    find_front,
)
from edgel3_tflm.converters.fit.figure import plot, plot_curves
from edgel3_tflm.converters.fit.measurement import (
    Measurement,
    Sample,
    Teacher,
    digest_of,
    measure,
    read_figures,
    write_measurement,
)
from edgel3_tflm.converters.fit.missing import Distillation
from edgel3_tflm.converters.pipeline import ConvertOptions, convert
from edgel3_tflm.converters.training.distill import DistillationFigures
from edgel3_tflm.drift.figures import to_plain
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.files import check_output_directory, make_directory, write_whole
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.types import Progress

JSON_NAME = "fit.json"
FIGURE_NAME = "fit.png"
CURVES_NAME = "sparsity.png"
WINNER_NAME = "winner"
_CANDIDATES_NAME = "candidates"
MANIFEST_ENTRY = "fit"
"""The winner's manifest has this entry: the budget, the rule, the reason and the candidates."""


@dataclass(frozen=True)
class FitOptions:
    """What to choose from, and for what.

    Parameters
    ----------
    budget : Budget
    given : tuple of Candidate
        Networks with weights.
    members : Members
        What else of the family is tried.
    sample : Sample
    teacher : NetworkWeights, optional
        By default the given network with the most weights that are not zero, in int8, as it is
        measured in any case.
    distillation : Distillation, optional
        Trains the members of which no weights are given.
    curves : bool
        Also plot accuracy against sparsity, with the teacher and log-mel statistics as baselines.
    """

    budget: Budget
    given: tuple[Candidate, ...]
    members: Members
    sample: Sample
    teacher: NetworkWeights | None = None
    distillation: Distillation | None = None
    curves: bool = False


@dataclass(frozen=True)
class FitResult:
    """The measured candidates and the choice.

    Parameters
    ----------
    candidates : tuple of Judged
    winner : Judged or None
        None if no candidate is within the budget.
    deployment : Deployment or None
        The winner, converted with a search for the best quantization.
    record : dict
        The contents of ``fit.json``.
    """

    candidates: tuple[Judged, ...]
    winner: Judged | None
    deployment: Deployment | None
    record: dict[str, Any]

    @property
    def front(self) -> list[Judged]:
        """The Pareto front."""
        return find_front(self.candidates)


def fit(
    options: FitOptions,
    output: Path,
    progress: Progress,
    note: Callable[[str], None],
) -> FitResult:
    """Measure the candidates, choose one and convert it.

    The figures of each candidate are kept below ``output``. The same call continues after an
    interruption, and another budget measures nothing again.

    Parameters
    ----------
    options : FitOptions
    output : pathlib.Path
        Directory for ``fit.json``, ``fit.png``, ``winner`` and ``candidates``.
    progress : callable
    note : callable
        Called with a line for each validation of a training.

    Raises
    ------
    EdgeL3Error
        If a clip, weights or the directory cannot be used.
    """
    check_output_directory(output)
    make_directory(output / _CANDIDATES_NAME)
    candidates = _list_candidates(options, output, progress, note)
    sample = options.sample
    reference = find_reference(options.given or candidates).weights
    # First, because its embeddings are then known when the others are compared with them.
    candidates.sort(key=lambda each: each.weights is not reference)
    teacher = Teacher(options.teacher or reference, "float" if options.teacher else "int8", sample)
    inputs = {**sample.describe(), "teacher": teacher.describe()}
    judged = []
    for number, candidate in enumerate(candidates, start=1):
        show = _prefix(progress, f"{number} of {len(candidates)}, {candidate.name}")
        figures = _find_measurement(candidate, inputs, sample, teacher, output, show)
        needs = options.budget.estimate(figures.footprint, figures.work)
        judged.append(Judged(figures, needs, options.budget.find_excesses(needs)))
    choice = choose(judged)
    winner, why = choice if choice is not None else (None, "no candidate is within the budget")
    front = find_front(judged)
    record: dict[str, Any] = {
        "generator": f"edgel3-tflm {__version__}",
        "budget": options.budget.to_json(),
        "rule": RULE_WITH_LABELS if sample.is_labelled else RULE_WITHOUT_LABELS,
        "reason": why,
        "winner": winner and winner.figures.digest,
        "front": [each.figures.digest for each in front],
        "teacher": teacher.describe(),
        "clips": len(sample.clips),
        "test_folds": sample.test_folds,
        "candidates": [each.to_json() for each in judged],
    }
    if options.curves:
        path = output / _CANDIDATES_NAME / "baselines.json"
        baselines = find_baselines(inputs, sample, teacher, path, progress)
        record["baselines"] = asdict(baselines)
        image = plot_curves([each.figures for each in judged], baselines, teacher.describe())
        write_whole(output / CURVES_NAME, image)
    record = to_plain(record)
    write_whole(output / FIGURE_NAME, plot(judged, options.budget, winner))
    write_whole(output / JSON_NAME, (json.dumps(record, indent=2) + "\n").encode())
    if winner is None:
        return FitResult(tuple(judged), None, None, record)
    entry = {
        **{name: record[name] for name in ("budget", "rule", "reason", "teacher")},
        "winner": winner.figures.digest,
        "candidates": to_plain([each.summarize() for each in judged]),
    }
    weights = candidates[judged.index(winner)].weights
    deployment = _convert_winner(weights, sample.calibration, output / WINNER_NAME, entry, progress)
    return FitResult(tuple(judged), winner, deployment, record)


def _prefix(progress: Progress, prefix: str) -> Progress:
    return lambda step, done, total: progress(f"{prefix}: {step}", done, total)


def _list_candidates(
    options: FitOptions, output: Path, progress: Progress, note: Callable[[str], None]
) -> list[Candidate]:
    candidates = [each for given in options.given for each in derive(given, options.members)]
    distillation = options.distillation
    if distillation is None:
        return candidates
    students = distillation.list_students(options.given, options.members)
    for number, choice in enumerate(students, start=1):
        name = choice.variant.name

        def report(found: DistillationFigures, name: str = name) -> None:
            cosine = f"{found.teacher_cosine:.4f}"
            note(f"{name}, step {found.step}: cosine to the teacher {cosine}")

        show = _prefix(progress, f"{number} of {len(students)}, {name}")
        candidates += distillation.train(
            choice, options.given, options.sample, output, show, report
        )
    return candidates


def _find_measurement(
    candidate: Candidate,
    inputs: dict[str, Any],
    sample: Sample,
    teacher: Teacher,
    output: Path,
    progress: Progress,
) -> Measurement:
    """Read the figures of a candidate, or measure and keep them."""
    digest = digest_of(candidate, inputs)
    path = output / _CANDIDATES_NAME / f"{digest[:16]}.json"
    found = read_figures(path, digest, Measurement)
    if found is None:
        found = measure(candidate, digest, sample, teacher, progress)
        write_measurement(path, found)
    return found


def _convert_winner(
    weights: NetworkWeights,
    calibration: Path | None,
    directory: Path,
    entry: dict[str, Any],
    progress: Progress,
) -> Deployment:
    """Convert with the defaults of ``convert``, unless the directory has this very result."""
    with suppress(ModelFileError):
        found = Deployment.load(directory)
        if found.manifest.get(MANIFEST_ENTRY) == json.loads(json.dumps(entry)):
            return found
    options = ConvertOptions(weights.variant, weights, calibration)
    show = _prefix(progress, f"winner, {weights.variant.name}")
    return convert(options, directory, show, entries={MANIFEST_ENTRY: entry})
