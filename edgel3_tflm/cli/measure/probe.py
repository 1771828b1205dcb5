"""The command ``probe``: a linear classifier over the folds of labelled clips."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from edgel3_tflm.audio.log_mel import log_mel_statistics
from edgel3_tflm.audio.manifest import (
    note_unlearned_classes,
    read_manifest,
    split_by_fold,
)
from edgel3_tflm.audio.resampling import SOXR
from edgel3_tflm.cli.options import (
    LabelledOption,
    OldModelOption,
    OptionalDeploymentArgument,
    RuntimeOption,
    choices,
    settle_manifest,
)
from edgel3_tflm.cli.screen import JsonOption, QuietOption, new_table, open_screen
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.runtime.artefacts import FLOAT, QUANTIZATIONS
from edgel3_tflm.runtime.deployment import Deployment


def probe_command(
    directory: OptionalDeploymentArgument = None,
    manifest: LabelledOption = None,
    model: OldModelOption = None,
    quantization: Annotated[
        str | None,
        typer.Option(
            **choices((FLOAT, *QUANTIZATIONS)),
            help="The float model, or the quantized one.",
            show_default="as it was converted",
        ),
    ] = None,
    statistics: Annotated[
        str | None,
        typer.Option(
            **choices(("sparse", "sea")),
            help="Instead of a model: mean and standard deviation of this family's log-mel values.",
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Instead of a model: an .npz file with the arrays clip, (n,) names as in the"
            " manifest, and embedding, (n, d) floats. A clip has a row for each of its windows.",
        ),
    ] = None,
    runtime: RuntimeOption = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="DEPLOYMENT",
            help="Also fit a linear map to the float embeddings of this deployment, on the other"
            " folds, and report its mean cosine similarity.",
        ),
    ] = None,
    fold: Annotated[
        list[int] | None,
        typer.Option(metavar="FOLD", help="Folds to test on; repeatable. Default: all."),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate embeddings by a linear classifier over the folds of labelled clips."""
    with open_screen(quiet=quiet, as_json=as_json) as screen:
        from edgel3_tflm.evaluation.probe import (
            check_folds,
            extract_features,
            map_cosine,
            probe,
            read_embeddings,
        )

        directory, manifest = settle_manifest(directory, manifest, model)
        clips = read_manifest(manifest)
        source: dict[str, Any]
        if sum(given is not None for given in (directory, statistics, embeddings)) != 1:
            raise EdgeL3Error(
                "expected one of DEPLOYMENT, --statistics sparse|sea and --embeddings FILE"
            )
        if embeddings is not None and teacher is not None:
            raise EdgeL3Error(
                "expected DEPLOYMENT or --statistics with --teacher, got --embeddings, whose"
                " windows have no known positions"
            )
        check_folds(clips, fold)
        if directory is not None:
            deployment = Deployment.load(directory)
            # "quantized" is what an earlier version called a deployment's own quantization.
            own = quantization in (None, "quantized")
            which = deployment.quantization if own else quantization
            spec = deployment.variant.frontend
            features = deployment.embedder(which, runtime).embed_log_mel
            source = {
                "model": deployment.variant.name,
                "precision": which,
                "weights": deployment.manifest["weights"]["description"],
            }
        elif statistics is not None:
            spec = find_variant(statistics).frontend
            features = log_mel_statistics
            source = {"model": f"log-mel statistics ({statistics})"}
        else:
            source = {"model": f"embeddings of {embeddings}"}
        if embeddings is None:
            source["resampler"] = SOXR
        if teacher is not None:
            teacher_model = Deployment.load(teacher)
        with screen.progress() as progress:
            if embeddings is not None:
                extracted = read_embeddings(embeddings, manifest, clips)
            else:
                extracted = extract_features(clips, spec, features, progress)
            progress("fit and test the classifier", 0, 0)
            results = probe(clips, extracted, fold)
            if teacher is not None:
                source["teacher"] = teacher_model.variant.name
                teacher_spec = teacher_model.variant.frontend
                embed = teacher_model.embedder("float").embed_log_mel
                theirs = extract_features(clips, teacher_spec, embed, progress)
                source["map_cosine"] = map_cosine(clips, extracted, theirs, fold)
        splits = split_by_fold(clips, [each.fold for each in results])
        notes = [*note_unlearned_classes([{clip.label} for clip in clips], splits)]
        notes += extracted.notes
        right, count = sum(each.right for each in results), sum(each.clips for each in results)
        table = new_table("fold", "clips", "correct", "accuracy %")
        for each in results:
            table.add_row(
                str(each.fold),
                str(each.clips),
                str(each.right),
                f"{100 * each.right / each.clips:.2f}",
            )
        table.add_section()
        table.add_row("all", str(count), str(right), f"{100 * right / count:.2f}")
        screen.show(
            {
                **source,
                "windows": len(extracted.values),
                "folds": [asdict(each) for each in results],
                "accuracy_percent": 100 * right / count,
                "notes": notes,
            },
            *(Text(f"{key}: {value}") for key, value in source.items()),
            table,
            *(Text(note, style="yellow") for note in notes),
        )
