r"""Compare a challenger with the champion on labelled listings that neither was trained on.

python -m jobs.evaluate_challenger --manifest manifest --splits test \
    --challenger models:/NAME/2 --champion models:/NAME@champion
"""

import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from jobs.command.locations import Location, ManifestLocation
from jobs.command.photo_settings import SCRATCH, PhotoSettings
from jobs.command.settings import Day, check_arguments, run_job


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
        description="what people decided, a folder or a table; wins over the manifest's labels",
    )
    embeddings: Location | None = Field(
        None, description="embedding store to use and fill, a folder or a table"
    )
    scratch: str | None = SCRATCH
    page: Path | None = Field(
        None, description="also write the HTML page to this file (MLflow has it either way)"
    )


if __name__ == "__main__":
    check_arguments(EvaluateChallenger)  # Before the imports below, which take seconds.

import pyarrow as pa
import torch
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812
from rich.console import Console
from rich.table import Table

from jobs.command import job_run
from jobs.command.folders import Folder
from jobs.command.progress import show_progress
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.pages.evaluation import Mistake, evaluation_page, figures_shown
from jobs.stages.decisions import decided_now
from jobs.stages.embedding import embed_photos
from jobs.stages.fingerprint import describe_data
from jobs.stages.labels import choose_labelled
from jobs.stages.manifest import read_photos
from jobs.stages.scoring import score_photos
from jobs.stages.scratch import scratch_base, scratch_space
from jobs.stages.spool import Spool
from jobs.stages.store.base import EmbeddingStore
from jobs.stages.store.opening import hold_store, open_store
from jobs.stages.thumbnails import read_thumbnails
from jobs.stages.unread import check_drivers
from jobs.stages.worker import ship_model
from schemas.errors import DataContractError, SettingsError
from seer_model.categorizer.bundle import ResolvedBundle
from seer_model.categorizer.scoring import SCORES
from seer_model.evaluation.comparison import worst_confusions
from seer_model.evaluation.outcomes import Outcomes, compare_with_labels
from seer_model.evaluation.record import EvaluatedModel, evaluation_record
from seer_model.photos.limits import PhotoLimits
from seer_model.tracking import registry, runs
from seer_model.tracking.promotion import EVALUATION_FILE

log = logging.getLogger(__name__)

_CONFUSIONS = 12
_EXAMPLES = 4


def evaluate(settings: EvaluateChallenger) -> None:
    """Score the same listings with each model, compare, log, and tag the challenger's version."""
    runs.connect(settings.tracking_uri)
    challenger, champion = _resolve_models(settings)
    spark = start_session("evaluate_challenger")
    found = read_photos(spark, settings.manifest, _partition(settings))
    labelled = choose_labelled(found, decided_now(spark, settings.labels))
    photos = labelled.in_splits(*settings.splits)
    base = scratch_base(spark, settings.scratch, settings.embeddings)
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
        listings = _labelled_listings(photos, scratch / "listings")
        limits = settings.photo_limits()
        # One store for both: models that share a backbone share its embeddings.
        store = settings.embeddings or (scratch / "embeddings").path

        def evaluate_model(model: ResolvedBundle, work: Folder) -> EvaluatedModel:
            with open_store(store, model.bundle.backbone.digest, base) as embeddings:
                return _evaluate(model, photos, listings, embeddings, work, limits)

        evaluated = evaluate_model(challenger, scratch / "challenger")
        baseline = evaluate_model(champion, scratch / "champion") if champion else None
        evaluation = evaluation_record(
            evaluated,
            baseline,
            listings.column("listing_id").to_pylist(),
            [dict(slices or ()) for slices in listings.column("slices").to_pylist()],
            _origin(settings, data, run_id),
            _device(),
        )
        page = _page(evaluation, evaluated.outcomes, photos, listings, limits)
        _log(evaluation, page, settings.page)
        _print_table(evaluation)
        write_report({**_summary(evaluation), **labelled.figures}, settings.report)
        _tag_challenger(settings, challenger, run_id)


def _resolve_models(
    settings: EvaluateChallenger,
) -> tuple[ResolvedBundle, ResolvedBundle | None]:
    challenger = registry.resolve_bundle(settings.challenger)
    champion = None
    if settings.champion and not _is_to_be_chosen(settings.champion):
        champion = registry.resolve_bundle(settings.champion)
    if champion is not None and champion.bundle.digest == challenger.bundle.digest:
        raise SettingsError(
            f"{settings.challenger} and {settings.champion} are the same model: nothing to compare"
        )
    return challenger, champion


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
    settings: EvaluateChallenger, challenger: ResolvedBundle, champion: ResolvedBundle | None
) -> None:
    for model, uri in ((challenger, settings.challenger), (champion, settings.champion)):
        if model is None or uri is None:
            continue
        job_run.reads_model(uri, model.version)
        if uri.startswith("models:/"):
            runs.link_model(model.name, model.version)


def _labelled_listings(photos: DataFrame, work: Folder) -> pa.Table:
    """Return `listing_id`, `label` and `slices` (those of the first photo), by `listing_id`."""
    listings = photos.groupBy("listing_id").agg(
        F.min("category_id").alias("label"),
        F.min_by("slices", "image_index").alias("slices"),
    )
    return Spool.write(listings, work).read(*listings.columns).sort_by("listing_id")


def _evaluate(
    model: ResolvedBundle,
    photos: DataFrame,
    listings: pa.Table,
    store: EmbeddingStore,
    work: Folder,
    limits: PhotoLimits,
) -> EvaluatedModel:
    """Score the labelled listings with a model and compare them with their labels."""
    shipped = ship_model(photos.sparkSession, model.folder, model.bundle.digest)
    for attempt in store.attempts(photos.sparkSession):
        with attempt:
            embedded = embed_photos(photos, shipped, store, work, limits)
            with show_progress(photos.sparkSession, "scoring listings"):
                spool = Spool.write(score_photos(embedded.photos, shipped), work / "scores")
    scores = spool.read(*SCORES.names).sort_by("listing_id")
    if scores.column("listing_id").to_pylist() != listings.column("listing_id").to_pylist():
        raise DataContractError(f"{len(scores)} listings scored of {len(listings)} labelled")
    labels = listings.column("label").to_pylist()
    return EvaluatedModel(model, compare_with_labels(model.bundle.tree, labels, scores))


def _page(
    evaluation: dict[str, Any],
    outcomes: Outcomes,
    photos: DataFrame,
    listings: pa.Table,
    limits: PhotoLimits,
) -> str:
    """Render the page with photos of mistakes; without, and with a warning, if reading fails."""
    # Some photos may not be readable any more, so twice as many examples are asked for.
    confusions = worst_confusions(outcomes, _CONFUSIONS, 2 * _EXAMPLES)
    ids = listings.column("listing_id").to_pylist()
    confused = [[ids[row] for row in confusion.rows] for confusion in confusions]
    worse = {g["group"]: g["examples"] for g in evaluation["much_worse"]["worse"][:_CONFUSIONS]}
    try:
        shown = sorted({listing for found in (*confused, *worse.values()) for listing in found})
        thumbnails = read_thumbnails(photos, shown, limits) if shown else {}
    except Exception as error:
        log.warning("no photos of mistakes on the page: %s", runs.one_line(error))
        thumbnails = {}
    scores = dict(zip(ids, outcomes.confidence.tolist(), strict=True))

    def mistakes(found: list[str]) -> list[Mistake]:
        read = [listing for listing in found if listing in thumbnails][:_EXAMPLES]
        return [Mistake(listing, scores[listing], thumbnails[listing]) for listing in read]

    return evaluation_page(
        evaluation,
        [(c, mistakes(found)) for c, found in zip(confusions, confused, strict=True)],
        {group: mistakes(found) for group, found in worse.items()},
    )


def _origin(
    settings: EvaluateChallenger, data: Mapping[str, object], run_id: str
) -> dict[str, object]:
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


def _tag_challenger(settings: EvaluateChallenger, challenger: ResolvedBundle, run_id: str) -> None:
    """Let a promotion of the challenger find this evaluation."""
    if failure := runs.logging_failure():
        raise SettingsError(
            f"the evaluation is not in MLflow, so no promotion can use it: {failure}"
        )
    if settings.challenger.startswith("models:/"):
        registry.tag_version(challenger.name, challenger.version, {"evaluation_run": run_id})


def _log(evaluation: dict[str, Any], html: str, page: Path | None) -> None:
    for role in ("challenger", "champion"):
        if evaluation[role]:
            figures = evaluation[role]["figures"] | _of_groups(evaluation[role])
            runs.log_figures({f"{role}_{name}": value for name, value in figures.items()})
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(html, encoding="utf-8")
    runs.log_text(html, "evaluation.html")
    runs.log_text(json.dumps(evaluation, indent=1), EVALUATION_FILE)


def _print_table(evaluation: dict[str, Any]) -> None:
    roles = [role for role in ("challenger", "champion") if evaluation[role]]
    table = Table("", *roles, *(["difference (95 % interval)"] if len(roles) > 1 else []))
    for name in figures_shown(evaluation):
        values = [evaluation[role]["figures"].get(name) for role in roles]
        cells = ["-" if v is None else f"{v:.3f}" for v in values]
        if d := evaluation["differences"].get(name):
            cells.append(f"{d['value']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})")
        table.add_row(name.replace("_", " "), *cells)
    Console().print(table)


def _summary(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return the report; all else is in the run's `evaluation.json`."""
    return {
        "challenger_model": evaluation["challenger"]["model"],
        "champion_model": evaluation["champion"] and evaluation["champion"]["model"],
        "splits": evaluation["splits"],
        **{
            role: {name: round(value, 4) for name, value in evaluation[role]["figures"].items()}
            for role in ("challenger", "champion")
            if evaluation[role]
        },
        "top1_difference": evaluation["differences"].get("top1"),
        **_of_groups(evaluation["challenger"]),
        "much_worse": [group["group"] for group in evaluation["much_worse"]["worse"]],
        "groups_searched": evaluation["much_worse"]["tested"],
        "page": "evaluation.html, among the run's artifacts",
        "run_id": evaluation["run_id"],
    }


def _of_groups(model: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The top-1 of the worst group, and the gap to the best, by slice."""
    found = model["worst_groups"]
    return {
        "worst_group_top1": {group["slice"]: round(group["top1"], 4) for group in found},
        "group_gap": {group["slice"]: round(group["gap"]["value"], 4) for group in found},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(EvaluateChallenger, evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
