"""Fine-tune a backbone on the photos of a training, in this process, on its GPU if there is one."""

import os

import numpy as np
import torch
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.command.folders import Folder
from jobs.command.progress import show_progress, watch
from jobs.stages.spool import Spool
from jobs.stages.training_photos import order_by_split
from schemas.errors import DataContractError
from schemas.taxonomy import Taxonomy
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.constants import PHOTOS_SHOWN
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.photos.limits import PhotoLimits
from seer_model.tracking import runs
from seer_model.training.finetuning import FinetuneRecipe, finetune
from seer_model.training.quantizing import LabelledSources, quantize_or_keep

__all__ = ["finetune_photos"]

_MOST_CHECKED = 2000


def finetune_photos(
    backbone: Backbone,
    photos: DataFrame,
    taxonomy: Taxonomy,
    recipe: FinetuneRecipe,
    scratch: Folder,
    limits: PhotoLimits,
) -> Backbone:
    """Fine-tune on the labelled photos that are not of `val`.

    What was quantized is quantized again afterwards, unless that loses right answers on `val`; the
    log says why it was not.

    Args:
        backbone: Where to start.
        photos: listing_id, image_index, photo_key, image_uri, image_bytes, image_key, category_id,
            split, problem.
        taxonomy: Has the photos' categories.
        recipe: The settings.
        scratch: Folder for the photos.
        limits: Limits on photos.

    Raises:
        DataContractError: There is no labelled photo, or a category is not in the taxonomy.
        SettingsError: The training diverged, or the trunk takes no crops of that size.
    """
    columns = ("listing_id", "category_id", "split", "image_index", "photo_key")
    source = ("image_uri", "image_bytes", "image_key")
    with show_progress(photos.sparkSession, "writing the photos to fine-tune on"):
        usable = photos.where(F.col("problem").isNull())
        spool = Spool.write(usable.select(*columns, *source), scratch / "finetune")
    table = spool.read(*columns)
    order, val = order_by_split(table, "listing_id", "image_index", "photo_key")
    count = len(order) - val
    if not count:
        raise DataContractError("no labelled photo to fine-tune on")
    labels = table.column("category_id").take(order).combine_chunks()
    categories = labels[:count].dictionary_encode()
    ClassTree(taxonomy, categories.dictionary.to_pylist())  # Refuses unknown labels early.
    sources = spool.map_photos(order)
    tuned = finetune(
        backbone,
        sources.some(range(count)),
        categories.indices.to_numpy().astype(np.int64),
        recipe,
        device="cuda" if torch.cuda.is_available() else "cpu",
        decode_threads=os.cpu_count() or 1,
        limits=limits,
        on_epoch=lambda epoch, loss: runs.log_figures({"finetune_loss": loss}, step=epoch),
        watch=watch,
    )
    if not backbone.quantized:
        return tuned
    rng = np.random.default_rng(recipe.seed)

    def drawn(rows: range, most: int) -> LabelledSources:
        chosen = np.sort(rng.permutation(rows)[:most])
        return LabelledSources([sources[row] for row in chosen], labels.take(chosen).to_pylist())

    learned, asked = (
        drawn(rows, _MOST_CHECKED) for rows in (range(count), range(count, len(order)))
    )
    shown = drawn(range(count), PHOTOS_SHOWN).sources
    made = quantize_or_keep(tuned, shown, learned, asked, limits)
    runs.log_figures({f"quantized_{name}": value for name, value in made.figures.items()})
    return made.backbone
