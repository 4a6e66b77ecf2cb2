"""Quantize a backbone, and check that a head learns as much from its features as before."""

import logging
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.errors import DataContractError, GateRefusal, SettingsError
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.constants import MOST_LOSS
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.runtimes.base import CPU_BATCH
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.pixels import Pixels, load_photo
from seer_model.photos.source import PhotoSource
from seer_model.processes import scratch_folder
from seer_model.training.quantized import compare_features

__all__ = ["LabelledSources", "QuantizedBackbone", "quantize_checked", "quantize_or_keep"]

log = logging.getLogger(__name__)

_FEWEST_CLASSES = 2
_ROUNDS, _BATCHES = 5, 8


class LabelledSources(NamedTuple):
    """Photos and their classes, one label a photo."""

    sources: Sequence[PhotoSource]
    labels: Sequence[str]


class QuantizedBackbone(NamedTuple):
    """A quantized backbone, and for the report how it compares with the one before."""

    backbone: Backbone
    figures: dict[str, Any]


class _Embedded(NamedTuple):
    """Photos that both networks embedded; vectors are float16, (photos, width)."""

    labels: npt.NDArray[np.str_]
    before: npt.NDArray[np.float16]
    after: npt.NDArray[np.float16]


def quantize_checked(
    backbone: Backbone,
    shown: Sequence[PhotoSource],
    learned: LabelledSources,
    asked: LabelledSources,
    folder: Path,
    *,
    limits: PhotoLimits = PhotoLimits(),  # noqa: B008 - frozen
    most_loss: float = MOST_LOSS,
) -> QuantizedBackbone:
    """Quantize a backbone and compare both: what heads answer, features, speed on this machine.

    Args:
        backbone: A backbone that is not quantized.
        shown: Photos that show which range every value takes, some `PHOTOS_SHOWN`.
        learned: Photos that the heads learn from; without labels only features are compared.
        asked: Other photos, which the heads are asked of; those of unknown classes are left out.
        folder: Gets the network, and so belongs to the result.
        limits: Limits on photos.
        most_loss: Share of right answers that may be lost.

    Raises:
        SettingsError: NNCF is not installed, or the backbone is quantized, or OpenVINO cannot run
            it.
        DataContractError: Too few of the photos shown can be used.
        GateRefusal: More right answers are lost, with a confidence of 90 %.
    """
    if not find_spec("nncf"):
        raise SettingsError(
            "quantizing needs nncf, which is not installed; pip install 'seer-categories[quantize]'"
        )
    from seer_model.backbones.runtimes.quantization import quantize  # noqa: PLC0415 - optional

    photos = _decoded(shown, backbone.preprocessing.image_size, limits)
    quantized = quantize(backbone, photos, folder)
    embedders = [
        PhotoEmbedder.open(each, threads=os.cpu_count() or 1, limits=limits)
        for each in (backbone, quantized)
    ]
    figures = {
        "photos_shown": len(photos),
        **_compare(embedders, shown, learned, asked, most_loss),
        **_speeds(backbone, quantized, photos),
    }
    return QuantizedBackbone(quantized, figures)


def quantize_or_keep(
    backbone: Backbone,
    shown: Sequence[PhotoSource],
    learned: LabelledSources,
    asked: LabelledSources,
    limits: PhotoLimits,
) -> QuantizedBackbone:
    """Quantize a backbone where it can be done and loses nothing, see `quantize_checked`.

    Else it stays what it is, without figures, and the log says why.
    """
    folder = Path(tempfile.mkdtemp(dir=scratch_folder()))
    try:
        made = quantize_checked(backbone, shown, learned, asked, folder, limits=limits)
    except (DataContractError, GateRefusal, SettingsError) as error:
        log.warning("the backbone stays in floating point: %s", error)
        return QuantizedBackbone(backbone, {})
    log.info("quantized: %s", made.figures)
    return made


def _decoded(shown: Sequence[PhotoSource], size: int, limits: PhotoLimits) -> list[Pixels]:
    """The photos that can be used."""
    found = []
    for source in shown:
        with suppress(PhotoRejected):
            found.append(load_photo(source, size, limits))
    if len(found) < CPU_BATCH:
        raise DataContractError(
            f"{len(found)} photos can be used, and quantizing takes {CPU_BATCH} at least"
        )
    return found


def _compare(
    embedders: Sequence[PhotoEmbedder],
    shown: Sequence[PhotoSource],
    learned: LabelledSources,
    asked: LabelledSources,
    most_loss: float,
) -> dict[str, Any]:
    first, other = (_embed(embedders, photos) for photos in (learned, asked))
    classes = np.unique(first.labels)
    known = np.isin(other.labels, classes)
    if len(classes) < _FEWEST_CLASSES or not known.any():
        log.warning("no labels to check with: only the features were compared")
        return _cosines(_embed(embedders, LabelledSources(shown, [""] * len(shown))))
    quality = compare_features(
        (first.before, other.before[known]),
        (first.after, other.after[known]),
        np.searchsorted(classes, first.labels),
        np.searchsorted(classes, other.labels[known]),
    )
    if quality.loss_at_least > most_loss:
        raise GateRefusal(
            f"the quantized network loses at least {quality.loss_at_least:.3f} of right answers "
            f"({quality.top1:.3f}, before {quality.top1_before:.3f}), more than {most_loss}"
        )
    return {**_cosines(other), **quality._asdict()}


def _embed(embedders: Sequence[PhotoEmbedder], photos: LabelledSources) -> _Embedded:
    """Embed photos with both; those that cannot be used are left out."""
    before, after = (embedder.embed(photos.sources) for embedder in embedders)
    pairs = zip(photos.labels, before, after, strict=True)
    usable = [
        (label, one.vector, other.vector)
        for label, one, other in pairs
        if one.vector is not None and other.vector is not None
    ]
    shape = (len(usable), embedders[0].runtime.width)
    return _Embedded(
        np.array([label for label, _, _ in usable], np.str_),
        np.array([vector for _, vector, _ in usable], np.float16).reshape(shape),
        np.array([vector for _, _, vector in usable], np.float16).reshape(shape),
    )


def _cosines(photos: _Embedded) -> dict[str, float]:
    before, after = (each.astype(np.float64) for each in (photos.before, photos.after))
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosines = (before * after).sum(axis=1) / np.maximum(norms, 1e-12)
    return {"cosine": float(cosines.mean()), "least_cosine": float(cosines.min())}


def _speeds(backbone: Backbone, quantized: Backbone, photos: list[Pixels]) -> dict[str, Any]:
    """How fast one core of this machine computes both, in turns."""
    batch = np.stack(photos[:CPU_BATCH])
    runtimes = [open_runtime(each) for each in (backbone, quantized)]
    seconds: list[list[float]] = [[], []]
    for _ in range(_ROUNDS):
        for runtime, taken in zip(runtimes, seconds, strict=True):
            began = process_time()
            for _ in range(_BATCHES):
                runtime.start(batch)()
            taken.append(process_time() - began)
    before, after = (_BATCHES * CPU_BATCH / min(taken) for taken in seconds)
    return {
        "computed_before": runtimes[0].name,
        "photos_per_second_before": round(before, 1),
        "photos_per_second": round(after, 1),
    }
