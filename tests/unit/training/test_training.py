"""From labelled photos to a bundle that keeps its promise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.errors import DataContractError
from schemas.taxonomy import Taxonomy
from seer_model.backbones.backbone import Backbone
from seer_model.categorizer.bundle import load_bundle, save_bundle
from seer_model.categorizer.scoring import LISTINGS, score_listings
from seer_model.evaluation.metrics import measure_quality
from seer_model.evaluation.outcomes import compare_with_labels
from seer_model.training.fit import FittedBundle, fit_bundle
from seer_model.training.labelled import LabelledPhotos

LabelledPhotosBuilder = Callable[..., LabelledPhotos]
Fit = Callable[..., FittedBundle]


@pytest.fixture
def fit(backbone: Backbone, taxonomy: Taxonomy) -> Fit:
    def call(train: LabelledPhotos, val: LabelledPhotos, **options: Any) -> FittedBundle:
        defaults = {"target_precision": 0.8, "unseen_share": 0.0, "seed": 0, "origin": {}}
        return fit_bundle(backbone, taxonomy, train, val, **defaults | options)

    return call


def shuffled(photos: LabelledPhotos, seed: int = 0) -> LabelledPhotos:
    order = np.random.default_rng(seed).permutation(len(photos.labels))
    return LabelledPhotos(
        [photos.listing_ids[i] for i in order],
        [photos.labels[i] for i in order],
        photos.vectors[order],
        None if photos.slices is None else photos.slices.take(order),
    )


def test_learns_what_is_to_learn(fitted: FittedBundle, classes: tuple[str, ...]) -> None:
    quality = fitted.quality
    assert (quality.listings, quality.photographed) == (120, 120)
    assert quality.top1 > 0.97
    assert quality.coverage > 0.9
    assert quality.precision is not None
    assert quality.precision >= 0.8
    assert quality.calibration_error < 0.1
    assert fitted.bundle.tree.classes == classes
    figures = quality.figures()
    how = {"head": "logistic regression", "calibrated_on": "val"}
    assert fitted.bundle.training == {"manifest": "synthetic", "seed": 0, **how, "val": figures}


def test_the_bundle_scores_new_listings(
    saved_bundle: Path, labelled_photos: LabelledPhotosBuilder
) -> None:
    bundle = load_bundle(saved_bundle)
    photos = labelled_photos(60, seed=9, photos=1)
    rows = [
        {
            "listing_id": listing,
            "photos": [{"image_index": 0, "vector": v.tobytes(), "reject_reason": None}],
        }
        for listing, v in zip(photos.listing_ids, photos.vectors, strict=True)
    ]
    scores = score_listings(bundle, pa.RecordBatch.from_pylist(rows, schema=LISTINGS))
    quality = measure_quality(
        compare_with_labels(bundle.tree, photos.labels, pa.Table.from_batches([scores]))
    )
    assert quality.top1 > 0.95
    assert quality.precision is not None
    assert quality.precision > 0.8


def test_the_figures_are_those_of_val(
    fit: Fit, fitted: FittedBundle, labelled_photos: LabelledPhotosBuilder
) -> None:
    """On noise nothing can be learned, so nothing is promised."""
    noisy = fit(labelled_photos(60, seed=1), labelled_photos(60, seed=2, noise=50.0))
    assert noisy.quality.top1 < 0.5
    assert noisy.quality.coverage < fitted.quality.coverage


@pytest.fixture
def no_photos(labelled_photos: LabelledPhotosBuilder) -> LabelledPhotos:
    return LabelledPhotos([], [], labelled_photos(6, seed=1).vectors[:0])


def test_without_val_every_label_serves_twice(
    fit: Fit, labelled_photos: LabelledPhotosBuilder, no_photos: LabelledPhotos
) -> None:
    fitted = fit(shuffled(labelled_photos(120, seed=1, photos=2)), no_photos)
    assert fitted.bundle.training["calibrated_on"] == "cross-fitting of train, folds by looks"
    assert fitted.bundle.training["head"].startswith("ridge, penalty ")
    assert fitted.quality.listings == 120
    assert fitted.quality.top1 > 0.9
    assert fitted.quality.coverage > 0.8
    assert fitted.quality.precision is not None
    assert fitted.quality.precision >= 0.8
    same = fit(labelled_photos(120, seed=1, photos=2), no_photos)
    assert same.bundle.head.weight.tobytes() == fitted.bundle.head.weight.tobytes()
    assert same.bundle.calibration == fitted.bundle.calibration


@pytest.mark.parametrize(("listings", "noise"), [(6, 1.0), (12, 1.0), (60, 50.0)])
def test_few_labels_or_noise_assign_nothing_rather_than_wrongly(
    fit: Fit,
    labelled_photos: LabelledPhotosBuilder,
    no_photos: LabelledPhotos,
    listings: int,
    noise: float,
) -> None:
    train = labelled_photos(listings, seed=1, noise=noise)
    fitted = fit(train, no_photos, target_precision=0.9)
    assert fitted.bundle.calibration.assigns_nothing
    assert fitted.shortfall is not None


def test_memory_is_bounded_by_parts_that_do_not_show(
    fit: Fit, labelled_photos: LabelledPhotosBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = labelled_photos(60, seed=1), labelled_photos(61, seed=2)
    whole = fit(*photos)
    monkeypatch.setattr("seer_model.training.labelled.LISTINGS_AT_ONCE", 7)
    monkeypatch.setattr("seer_model.training.fit.LISTINGS_AT_ONCE", 7)
    monkeypatch.setattr("seer_model.categorizer.calibration._ROWS_AT_ONCE", 7)
    monkeypatch.setattr("seer_model.training.head._ROWS_AT_ONCE", 7)
    in_parts = fit(*photos)
    assert in_parts.quality == whole.quality
    np.testing.assert_allclose(in_parts.bundle.head.weight, whole.bundle.head.weight, rtol=1e-4)
    thresholds = in_parts.bundle.calibration.thresholds
    assert thresholds == pytest.approx(whole.bundle.calibration.thresholds)


def test_same_photos_same_digest(
    fit: Fit, labelled_photos: LabelledPhotosBuilder, tmp_path: Path
) -> None:
    train, val = labelled_photos(36, seed=1), labelled_photos(36, seed=2)
    one, same = (save_bundle(fit(train, val).bundle, tmp_path / str(i)) for i in range(2))
    assert same.digest == one.digest
    other = save_bundle(fit(train, val, seed=1).bundle, tmp_path / "other")
    assert other.digest != one.digest


def test_the_order_of_val_photos_does_not_count(
    fit: Fit, labelled_photos: LabelledPhotosBuilder
) -> None:
    train, val = labelled_photos(36, seed=1), labelled_photos(36, seed=2, noise=1.5, photos=3)
    one, other = fit(train, val), fit(train, shuffled(val))
    assert one.quality.listings == other.quality.listings == 36
    assert other.quality.figures() == pytest.approx(one.quality.figures(), abs=1e-3)


# Labels


def test_labels_of_val_without_a_class_are_wrong(
    fit: Fit, labelled_photos: LabelledPhotosBuilder
) -> None:
    train = labelled_photos(60, seed=1, labels=["a-1-1", "f-1-1", "t-1"])
    val = labelled_photos(80, seed=2, labels=["a-1-1", "f-1-1", "t-1", "f-1-2"])
    fitted = fit(train, val)
    assert fitted.bundle.tree.classes == ("a-1-1", "f-1-1", "t-1")
    assert fitted.quality.listings == 80
    assert fitted.quality.top1 == pytest.approx(0.75, abs=0.02)
    assert fitted.quality.precision is not None
    assert fitted.quality.precision >= 0.8


def test_an_inner_category_can_be_a_class(fit: Fit, labelled_photos: LabelledPhotosBuilder) -> None:
    labels = ["a-1", "a-1-1", "f"]
    fitted = fit(
        labelled_photos(60, seed=1, labels=labels), labelled_photos(60, seed=2, labels=labels)
    )
    assert fitted.bundle.tree.classes == ("a-1", "a-1-1", "f")
    assert fitted.quality.top1 > 0.97


@pytest.mark.parametrize("where", ["train", "val"])
def test_labels_outside_the_taxonomy(
    fit: Fit, labelled_photos: LabelledPhotosBuilder, where: str
) -> None:
    photos = {"train": labelled_photos(12, seed=1), "val": labelled_photos(12, seed=2)}
    photos[where] = photos[where]._replace(labels=["nosuch", *photos[where].labels[1:]])
    with pytest.raises(DataContractError, match="1 labels are not in the taxonomy, 'nosuch'"):
        fit(photos["train"], photos["val"])


def test_one_class_is_too_few(fit: Fit, labelled_photos: LabelledPhotosBuilder) -> None:
    with pytest.raises(DataContractError, match="at least two classes, found 1"):
        fit(labelled_photos(6, seed=1, labels=["t-1"]), labelled_photos(6, seed=2))


def test_val_shares_no_class_with_train(fit: Fit, labelled_photos: LabelledPhotosBuilder) -> None:
    train = labelled_photos(12, seed=1, labels=["a-1-1", "t-1"])
    with pytest.raises(DataContractError, match="no photo of the split val has a category"):
        fit(train, labelled_photos(6, seed=2, labels=["f-1-1", "f-1-2"]))


def test_by_listing_keeps_photos_together(labelled_photos: LabelledPhotosBuilder) -> None:
    photos = labelled_photos(20, seed=1, photos=3)
    mixed = shuffled(photos)
    sorted_photos = mixed.by_listing()
    ids = list(sorted_photos.listing_ids)
    assert ids == sorted(ids)

    def entries(found: LabelledPhotos) -> set[tuple[str, str, bytes]]:
        vectors = (vector.tobytes() for vector in found.vectors)
        return set(zip(found.listing_ids, found.labels, vectors, strict=True))

    assert entries(sorted_photos) == entries(photos)


REGIONS = pa.map_(pa.string(), pa.string())


def in_regions(photos: LabelledPhotos, *regions: str | None) -> LabelledPhotos:
    """Give the photos of each listing one of the regions in turn."""
    names = {
        listing: regions[i % len(regions)]
        for i, listing in enumerate(dict.fromkeys(photos.listing_ids))
    }
    rows = [[("region", name)] if (name := names[i]) else None for i in photos.listing_ids]
    return photos._replace(slices=pa.array(rows, REGIONS))


def test_the_worst_groups_of_val_are_recorded(
    fit: Fit, labelled_photos: LabelledPhotosBuilder
) -> None:
    val = in_regions(labelled_photos(120, seed=2), "eu", "us", None)
    fitted = fit(labelled_photos(120, seed=1), shuffled(val))
    [found] = fitted.bundle.training["worst_groups"]
    assert (found["slice"], found["groups"], found["listings"]) == ("region", 2, 40)
    assert found["listings_without"] == 40
    assert (found["small"], fitted.balanced) == (0, None)


def test_balanced_groups_are_counted(
    fit: Fit, labelled_photos: LabelledPhotosBuilder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    regions = [*["eu", "us", None] * 13, "in"]
    train, val = (in_regions(labelled_photos(120, seed), *regions) for seed in (1, 2))
    fitted = fit(shuffled(train), val, balance="region")
    assert fitted.balanced == {"eu": 78, "us": 78, "(fewer than 20)": 6, "(without)": 78}
    assert "6 are in groups of fewer than 20, which are one group, and 78 without" in caplog.text
    assert fitted.bundle.training["head"] == "logistic regression"
    assert fitted.quality.top1 > 0.97
    assert not np.array_equal(fitted.bundle.head.weight, fit(train, val).bundle.head.weight)


def test_without_val_nothing_is_balanced(
    fit: Fit, labelled_photos: LabelledPhotosBuilder, no_photos: LabelledPhotos
) -> None:
    with pytest.raises(DataContractError, match=r"--balance region: .* split val"):
        fit(in_regions(labelled_photos(60, seed=1), "eu", "us"), no_photos, balance="region")


def test_a_region_is_in_one_fold_if_asked(
    fit: Fit, labelled_photos: LabelledPhotosBuilder, no_photos: LabelledPhotos
) -> None:
    regions = ["eu", "us", "in", "br", "jp"] * 24
    train = in_regions(labelled_photos(120, seed=1), *regions)
    fitted = fit(shuffled(train), no_photos, fold_by="region")
    rests_on = "cross-fitting of train, folds by region"
    assert fitted.bundle.training["calibrated_on"] == rests_on
    assert fitted.quality.top1 > 0.9


@pytest.mark.parametrize(("regions", "names"), [(("eu",), "the slices region"), ((None,), "no")])
def test_a_slice_without_two_groups_cannot_be_balanced(
    fit: Fit,
    labelled_photos: LabelledPhotosBuilder,
    regions: tuple[str | None, ...],
    names: str,
) -> None:
    train, val = (in_regions(labelled_photos(60, seed), *regions) for seed in (1, 2))
    with pytest.raises(DataContractError, match=f"--balance region: .*; they have {names}"):
        fit(train, val, balance="region")
