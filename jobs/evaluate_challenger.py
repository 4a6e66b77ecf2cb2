r"""Compare a challenger with the champion on labelled listings that neither was trained on.

python -m jobs.evaluate_challenger --manifest manifest --splits test \
    --challenger models:/NAME/2 --champion models:/NAME@champion
"""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import Field

from jobs.command.locations import Location, ManifestLocation, Table
from jobs.command.photo_settings import SCRATCH, PhotoSettings
from jobs.command.settings import Day, begin, run_job


class EvaluateChallenger(PhotoSettings):
    """Measure a challenger, and the champion beside it, on labelled listings."""

    manifest: ManifestLocation = Field(description="the manifest's folder or table")
    ds: Day | None = Field(None, description="only this partition (default: all)")
    challenger: str = Field(description="models:/name/3, models:/name@alias, runs:/… or a folder")
    champion: str | None = Field(
        None,
        description="the model to compare it with, named likewise (a first version has none)",
    )
    splits: list[str] = Field(["test"], description="splits of the manifest (repeatable)")
    labels: Location | None = Field(
        None,
        description="what people decided, a folder or a table (for a screener, a CSV of concepts); "
        "wins over the manifest's labels",
    )
    embeddings: Location | None = Field(
        None, description="embedding store to use and fill, a folder or a table"
    )
    scratch: str | None = SCRATCH
    page: Path | None = Field(
        None, description="also write the HTML page to this file (MLflow has it either way)"
    )


if __name__ == "__main__":
    begin(EvaluateChallenger)  # Before the imports below, which take seconds.

import torch
from pyspark.sql import DataFrame
from rich.console import Console

from jobs.command import job_run
from jobs.command.folders import Folder
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.stages.categorizer_evaluation import evaluate_categorizers
from jobs.stages.concept_labels import label_photos
from jobs.stages.decisions import decided_now
from jobs.stages.evaluated import Evaluated, OpenStore
from jobs.stages.fingerprint import describe_data
from jobs.stages.labels import choose_labelled, label_by_attribute
from jobs.stages.manifest import read_photos
from jobs.stages.scratch import scratch_base, scratch_space
from jobs.stages.screener_evaluation import evaluate_screeners
from jobs.stages.store.opening import hold_store, open_store
from jobs.stages.unread import check_drivers
from schemas.errors import SettingsError
from seer_model.categorizer.bundle import ResolvedBundle
from seer_model.photos.limits import PhotoLimits
from seer_model.screener.concepts import ResolvedScreener
from seer_model.tracking import registry, runs
from seer_model.tracking.promotion import EVALUATION_FILE

log = logging.getLogger(__name__)


def evaluate(settings: EvaluateChallenger) -> None:
    """Score the same listings with each model, compare, log, and tag the challenger's version."""
    runs.connect(settings.tracking_uri)
    challenger = registry.resolve_model(settings.challenger)
    spark = start_session("evaluate_challenger")
    found = read_photos(spark, settings.manifest, _partition(settings))
    if isinstance(challenger, ResolvedScreener):
        _evaluate_screener(settings, challenger, found)
    else:
        _evaluate_categorizer(settings, challenger, found)


def _evaluate_categorizer(
    settings: EvaluateChallenger, challenger: ResolvedBundle, found: DataFrame
) -> None:
    champion = _champion(settings, challenger, registry.resolve_bundle)
    found = label_by_attribute(found, challenger.bundle.training.get("attribute"))
    labelled = choose_labelled(found, decided_now(found.sparkSession, settings.labels))
    photos = labelled.in_splits(*settings.splits)
    with _evaluation(settings, photos, challenger, champion) as run:
        evaluated = evaluate_categorizers(challenger, champion, photos, *run)
        _conclude(settings, challenger, evaluated, labelled.figures)


def _evaluate_screener(
    settings: EvaluateChallenger, challenger: ResolvedScreener, found: DataFrame
) -> None:
    champion = _champion(settings, challenger, registry.resolve_screener)
    if isinstance(settings.labels, Table):
        raise SettingsError(f"--labels {settings.labels}: for a screener, a CSV of concepts")
    labelled = label_photos(found, settings.labels)
    photos = labelled.in_splits(*settings.splits)
    with _evaluation(settings, photos, challenger, champion) as run:
        evaluated = evaluate_screeners(challenger, champion, labelled.labels, photos, *run)
        _conclude(settings, challenger, evaluated, labelled.figures)


Model = TypeVar("Model", ResolvedBundle, ResolvedScreener)


def _champion(
    settings: EvaluateChallenger, challenger: Model, resolve: Callable[[str], Model]
) -> Model | None:
    if not settings.champion or _is_to_be_chosen(settings.champion):
        return None
    champion = resolve(settings.champion)
    if champion.bundle.digest == challenger.bundle.digest:
        raise SettingsError(
            f"{settings.challenger} and {settings.champion} are the same model: nothing to compare"
        )
    return champion


class _Evaluation(NamedTuple):
    """What an evaluation has beside its models and photos."""

    open_embeddings: OpenStore
    scratch: Folder
    limits: PhotoLimits
    origin: dict[str, Any]


@contextmanager
def _evaluation(
    settings: EvaluateChallenger,
    photos: DataFrame,
    challenger: ResolvedBundle | ResolvedScreener,
    champion: ResolvedBundle | ResolvedScreener | None,
) -> Iterator[_Evaluation]:
    """A tracked run, which knows what is read."""
    base = scratch_base(photos.sparkSession, settings.scratch, settings.embeddings)
    with (
        runs.tracked_run("evaluate_challenger", settings.run_parameters()) as run_id,
        hold_store(settings.embeddings),
        scratch_space(base) as scratch,
    ):
        data = describe_data(photos, settings.manifest, _partition(settings))
        runs.log_data(data)
        job_run.reads(settings.manifest, ds=data["ds"], rows=data["rows"], version=data["digest"])
        job_run.reads(settings.labels)
        check_drivers(data, settings)
        _link_models(settings, challenger, champion)
        # One store for both: models that share a backbone share its embeddings.
        store = settings.embeddings or (scratch / "embeddings").path
        yield _Evaluation(
            lambda digest: open_store(store, digest, base),
            scratch,
            settings.photo_limits(),
            _origin(settings, data, run_id),
        )


def _conclude(
    settings: EvaluateChallenger,
    challenger: ResolvedBundle | ResolvedScreener,
    evaluated: Evaluated,
    figures: Mapping[str, Any],
) -> None:
    """Log, print and report, and let a promotion of the challenger find the evaluation."""
    for role in ("challenger", "champion"):
        if model := evaluated.record[role]:
            runs.log_figures({f"{role}_{name}": value for name, value in model["figures"].items()})
    runs.log_figures(evaluated.more)
    if settings.page is not None:
        settings.page.parent.mkdir(parents=True, exist_ok=True)
        settings.page.write_text(evaluated.page, encoding="utf-8")
    runs.log_text(evaluated.page, "evaluation.html")
    runs.log_text(json.dumps(evaluated.record, indent=1), EVALUATION_FILE)
    Console().print(evaluated.table)
    write_report({**evaluated.summary, **figures}, settings.report)
    if failure := runs.logging_failure():
        raise SettingsError(
            f"the evaluation is not in MLflow, so no promotion can use it: {failure}"
        )
    if settings.challenger.startswith("models:/"):
        tags = {"evaluation_run": evaluated.record["run_id"]}
        registry.tag_version(challenger.name, challenger.version, tags)


def _is_to_be_chosen(champion: str) -> bool:
    """Whether this is the alias of the champion, and the model has none yet."""
    name = re.fullmatch("models:/(.+)@champion", champion)
    if name is None or registry.aliased_version(name[1], "champion") is not None:
        return False
    log.warning("%s: there is no champion yet, so the challenger is measured alone", champion)
    return True


def _partition(settings: EvaluateChallenger) -> str | None:
    return settings.ds.isoformat() if settings.ds else None


def _link_models(
    settings: EvaluateChallenger,
    challenger: ResolvedBundle | ResolvedScreener,
    champion: ResolvedBundle | ResolvedScreener | None,
) -> None:
    for model, uri in ((challenger, settings.challenger), (champion, settings.champion)):
        if model is None or uri is None:
            continue
        job_run.reads_model(uri, model.version)
        if uri.startswith("models:/"):
            runs.link_model(model.name, model.version)


def _origin(
    settings: EvaluateChallenger, data: Mapping[str, object], run_id: str
) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "evaluated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "manifest": data["manifest"],
        "ds": _partition(settings),
        "splits": settings.splits,
        "data": dict(data),
        "device": _device(),
    }


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(EvaluateChallenger, evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
