"""Score labelled listings with screeners, and compare a challenger with a champion."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812
from rich.table import Table

from jobs.command.folders import Folder
from jobs.pages.concepts import concepts_page
from jobs.stages.concept_labels import join_labels
from jobs.stages.embedding import embed_photos
from jobs.stages.evaluated import Evaluated, OpenStore
from jobs.stages.spool import Spool
from jobs.stages.worker import ship_model
from schemas.errors import DataContractError
from seer_model.evaluation.concepts import ConceptScores, concept_record
from seer_model.photos.limits import PhotoLimits
from seer_model.screener.concepts import ResolvedScreener
from seer_model.training.concepts import LabelledConcepts, listing_scores

__all__ = ["evaluate_screeners"]


def evaluate_screeners(
    challenger: ResolvedScreener,
    champion: ResolvedScreener | None,
    labels: DataFrame,
    photos: DataFrame,
    open_embeddings: OpenStore,
    work: Folder,
    limits: PhotoLimits,
    origin: Mapping[str, Any],
) -> Evaluated:
    """Evaluate screeners on labelled photos.

    A listing that has a concept counts as found if one of its photos is; photos that cannot be read
    are not seen, as in a screening.

    Args:
        challenger: The screener to evaluate.
        champion: The one to compare it with.
        labels: What photos show, from `label_photos`.
        photos: The labelled photos to evaluate on.
        open_embeddings: Opens the store of a backbone, by its digest.
        work: Scratch folder of this run.
        limits: Limits on photos.
        origin: What is evaluated on; part of the record.
    """
    said = Spool.write(labels, work / "said")

    def embed(model: ResolvedScreener, folder: Folder) -> LabelledConcepts:
        backbone = model.bundle.backbone
        shipped = ship_model(photos.sparkSession, model.folder, model.bundle.digest)
        with open_embeddings(backbone.digest) as store:
            for attempt in store.attempts(photos.sparkSession):
                with attempt:
                    embedded = embed_photos(photos, shipped, store, folder, limits)
                    usable = embedded.photos.where(F.col("vector").isNotNull())
                    columns = ("listing_id", "image_index", "split", "vector")
                    key = F.xxhash64("vector").alias("vector_key")
                    spool = Spool.write(usable.select(*columns, key), folder / "usable")
        return join_labels(spool, said, backbone.width)

    own = embed(challenger, work / "challenger")
    if not own.listing_ids:
        raise DataContractError("no labelled photo to evaluate on can be read")
    scores = _scores(challenger, own)
    others = None
    if champion is not None:
        theirs = embed(champion, work / "champion")
        if theirs.listing_ids != own.listing_ids:
            raise DataContractError("the screeners' backbones can read different photos")
        others = _scores(champion, theirs)
    record = concept_record(scores, others, _has(own), origin)
    return Evaluated(record, concepts_page(record), _table(record), _summary(record))


def _scores(model: ResolvedScreener, photos: LabelledConcepts) -> ConceptScores:
    """The probabilities of each listing: those of its likeliest photo."""
    found = model.bundle.concepts.probabilities([vector.tobytes() for vector in photos.vectors])
    listing = _listing(photos)
    columns = [listing_scores(column.astype(np.float64), listing) for column in found.T]
    return ConceptScores(model, np.stack(columns, axis=1))


def _has(photos: LabelledConcepts) -> dict[str, npt.NDArray[np.int8]]:
    """Whether each listing has each concept: if one photo has; -1 if nobody said of any."""
    listing = _listing(photos)
    return {
        name: listing_scores(column.astype(np.float64), listing).astype(np.int8)
        for name, column in zip(photos.names, photos.shows.T, strict=True)
    }


def _listing(photos: LabelledConcepts) -> npt.NDArray[np.int64]:
    _, numbers = np.unique(np.array(photos.listing_ids, str), return_inverse=True)
    return np.asarray(np.sort(numbers), np.int64)


def _table(record: Mapping[str, Any]) -> Table:
    table = Table(
        *("concept", "with it", "of", "average precision", "recall", "reviewed"),
        *("precision of blocking", "recall of blocking", "difference (95 % interval)"),
    )
    names = ("average_precision", "recall", "reviewed", "block_precision", "block_recall")
    for concept, found in record["challenger"]["concepts"].items():
        shares = ["-" if found[name] is None else f"{found[name]:.3f}" for name in names]
        d = record["differences"].get(concept)
        difference = f"{d['value']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})" if d else ""
        table.add_row(concept, str(found["with_it"]), str(found["listings"]), *shares, difference)
    return table


def _summary(record: Mapping[str, Any]) -> dict[str, Any]:
    names = ("with_it", "average_precision", "recall", "block_precision", "block_recall")
    return {
        "challenger_model": record["challenger"]["model"],
        "champion_model": record["champion"] and record["champion"]["model"],
        "splits": record["splits"],
        **{
            role: {
                concept: {name: found[name] for name in names}
                for concept, found in record[role]["concepts"].items()
            }
            for role in ("challenger", "champion")
            if record[role]
        },
        "concepts_unmeasured": record["unmeasured"],
        "concepts_missing": record["missing_concepts"],
        "page": "evaluation.html, among the run's artifacts",
        "run_id": record["run_id"],
    }
