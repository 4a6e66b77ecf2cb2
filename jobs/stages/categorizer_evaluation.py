"""Score labelled listings with categorizers, and compare a challenger with a champion."""

import logging
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812
from rich.table import Table

from jobs.command.folders import Folder
from jobs.command.progress import show_progress
from jobs.pages.evaluation import Mistake, evaluation_page, figures_shown
from jobs.stages.embedding import embed_photos
from jobs.stages.evaluated import Evaluated, OpenStore
from jobs.stages.scoring import score_photos
from jobs.stages.spool import Spool
from jobs.stages.store.base import EmbeddingStore
from jobs.stages.thumbnails import read_thumbnails
from jobs.stages.worker import ship_model
from schemas.errors import DataContractError
from seer_model.categorizer.bundle import ResolvedBundle
from seer_model.categorizer.scoring import SCORES
from seer_model.evaluation.comparison import worst_confusions
from seer_model.evaluation.outcomes import Outcomes, compare_with_labels
from seer_model.evaluation.record import EvaluatedModel, evaluation_record
from seer_model.photos.limits import PhotoLimits
from seer_model.tracking import runs

__all__ = ["evaluate_categorizers"]

log = logging.getLogger(__name__)

_CONFUSIONS = 12
_EXAMPLES = 4


def evaluate_categorizers(
    challenger: ResolvedBundle,
    champion: ResolvedBundle | None,
    photos: DataFrame,
    open_embeddings: OpenStore,
    work: Folder,
    limits: PhotoLimits,
    origin: Mapping[str, Any],
) -> Evaluated:
    """Evaluate categorizers on labelled photos.

    Args:
        challenger: The model to evaluate.
        champion: The one to compare it with.
        photos: The labelled photos to evaluate on, from `choose_labelled`.
        open_embeddings: Opens the store of a backbone, by its digest.
        work: Scratch folder of this run.
        limits: Limits on photos.
        origin: What is evaluated on, and the `device`; part of the record.
    """
    listings = _labelled_listings(photos, work / "listings")

    def evaluate_model(model: ResolvedBundle, folder: Folder) -> EvaluatedModel:
        with open_embeddings(model.bundle.backbone.digest) as embeddings:
            return _evaluate(model, photos, listings, embeddings, folder, limits)

    evaluated = evaluate_model(challenger, work / "challenger")
    baseline = evaluate_model(champion, work / "champion") if champion else None
    evaluation = evaluation_record(
        evaluated,
        baseline,
        listings.column("listing_id").to_pylist(),
        [dict(slices or ()) for slices in listings.column("slices").to_pylist()],
        origin,
        origin["device"],
    )
    page = _page(evaluation, evaluated.outcomes, photos, listings, limits)
    more = {
        f"{role}_{name}": value
        for role in ("challenger", "champion")
        if evaluation[role]
        for name, value in _of_groups(evaluation[role]).items()
    }
    return Evaluated(evaluation, page, _table(evaluation), _summary(evaluation), more)


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


def _table(evaluation: Mapping[str, Any]) -> Table:
    roles = [role for role in ("challenger", "champion") if evaluation[role]]
    table = Table("", *roles, *(["difference (95 % interval)"] if len(roles) > 1 else []))
    for name in figures_shown(evaluation):
        values = [evaluation[role]["figures"].get(name) for role in roles]
        cells = ["-" if v is None else f"{v:.3f}" for v in values]
        if d := evaluation["differences"].get(name):
            cells.append(f"{d['value']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})")
        table.add_row(name.replace("_", " "), *cells)
    return table


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
