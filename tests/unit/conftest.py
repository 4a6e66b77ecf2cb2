"""A tiny model for all unit tests: random trunk at 64 pixels, three levels, synthetic features."""

import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import settings
from PIL import Image

from schemas.taxonomy import Category, Taxonomy
from seer_model.backbones.backbone import Backbone, save_backbone
from seer_model.backbones.weights import random_backbone
from seer_model.categorizer.bundle import Bundle, save_bundle
from seer_model.categorizer.familiarity import Familiarity
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.thresholds import Calibration
from seer_model.files import digest_file
from seer_model.linear_head import LinearHead
from seer_model.training.fit import FittedBundle, fit_bundle
from seer_model.training.labelled import LabelledPhotos
from tests.support.conversions import convert_once
from tests.support.spark_python import CONVERSIONS
from tests.support.swav_training import write_manifest

settings.register_profile("seer", deadline=None)  # The machine is shared.
settings.load_profile("seer")

LabelledPhotosBuilder = Callable[..., LabelledPhotos]

PATHS = {
    "a": ("Apparel",),
    "a-1": ("Apparel", "Shoes"),
    "a-1-1": ("Apparel", "Shoes", "Boots"),
    "a-1-2": ("Apparel", "Shoes", "Sandals"),
    "a-2": ("Apparel", "Hats"),
    "a-2-1": ("Apparel", "Hats", "Caps"),
    "f": ("Furniture",),
    "f-1": ("Furniture", "Chairs"),
    "f-1-1": ("Furniture", "Chairs", "Stools"),
    "f-1-2": ("Furniture", "Chairs", "Armchairs"),
    "t": ("Toys",),
    "t-1": ("Toys", "Dolls"),
}
CLASSES = ("a-1-1", "a-1-2", "a-2-1", "f-1-1", "f-1-2", "t-1")
"""Five classes at depth 3 and one at depth 2."""


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """With a tiny trunk, waking threads takes longer than the work."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _converted_once() -> None:
    """A conversion for OpenVINO takes as long as all else that a test does with a backbone."""
    convert_once(Path(os.environ[CONVERSIONS]))


@pytest.fixture(scope="session")
def taxonomy() -> Taxonomy:
    parents = {path: category_id for category_id, path in PATHS.items()}
    return Taxonomy(
        [Category(name, path, parents.get(path[:-1])) for name, path in PATHS.items()], "2026-01"
    )


@pytest.fixture(scope="session")
def classes() -> tuple[str, ...]:
    return CLASSES


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return random_backbone("regnety_002", image_size=64)


@pytest.fixture(scope="session")
def labelled_photos(backbone: Backbone) -> LabelledPhotosBuilder:
    """Builds embeddings of listings whose category shows in 40 of their values."""

    def build(
        listings: int,
        seed: int,
        labels: Sequence[str] = CLASSES,
        noise: float = 0.5,
        photos: int = 2,
    ) -> LabelledPhotos:
        rng = np.random.default_rng(seed)
        centres = np.random.default_rng(0).standard_normal((len(PATHS), 40))
        ids, names, vectors = [], [], []
        for listing in range(listings):
            label = labels[listing % len(labels)]
            for _ in range(photos):
                vector = np.zeros(backbone.width)
                vector[:40] = centres[list(PATHS).index(label)] + noise * rng.standard_normal(40)
                ids.append(f"listing-{seed}-{listing}")
                names.append(label)
                vectors.append(vector.astype(np.float16))
        return LabelledPhotos(ids, names, np.stack(vectors))

    return build


@pytest.fixture(scope="session")
def fitted(
    backbone: Backbone, taxonomy: Taxonomy, labelled_photos: LabelledPhotosBuilder
) -> FittedBundle:
    return fit_bundle(
        backbone,
        taxonomy,
        labelled_photos(120, seed=1),
        labelled_photos(120, seed=2),
        target_precision=0.8,
        unseen_share=0.0,
        seed=0,
        origin={"manifest": "synthetic", "seed": 0},
    )


@pytest.fixture(scope="session")
def saved_bundle(fitted: FittedBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder; copy it before changing it."""
    folder = tmp_path_factory.mktemp("bundle") / "saved"
    save_bundle(fitted.bundle, folder)
    return folder


@pytest.fixture(scope="session")
def undecided_bundle(backbone: Backbone, taxonomy: Taxonomy) -> Bundle:
    """A bundle of random weights that reaches every decision and level on random embeddings."""
    rng = np.random.default_rng(5)
    tree = ClassTree(taxonomy, CLASSES)
    head = LinearHead(
        rng.standard_normal((len(CLASSES), backbone.width)).astype(np.float32) / 8,
        rng.standard_normal(len(CLASSES)).astype(np.float32) / 8,
    )
    familiarity = Familiarity(
        mean=rng.standard_normal(backbone.width).astype(np.float32) / 8,
        scale=np.full(backbone.width, 1.1, np.float32),
        axes=rng.standard_normal((9, backbone.width)).astype(np.float32) / 40,
        weight=rng.standard_normal((len(CLASSES), backbone.width)).astype(np.float32) / 8,
        bias=np.full(len(CLASSES), 5, np.float32),
        limits=np.array([300, 230, 160], np.float32),
    )
    calibration = Calibration(1.3, (0.8, 0.7, 0.65), 0.9)
    return Bundle(backbone, head, tree, calibration, familiarity=familiarity)


@pytest.fixture(scope="session")
def photo_bytes() -> Callable[..., bytes]:
    """Builds an encoded photo of random colours from a seed."""

    def build(
        seed: int = 0, size: tuple[int, int] = (80, 72), form: str = "JPEG", **options: object
    ) -> bytes:
        rng = np.random.default_rng(seed)
        coarse: npt.NDArray[np.uint8] = rng.integers(0, 256, (6, 6, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize(size).save(buffer, form, **options)
        return buffer.getvalue()

    return build


@pytest.fixture(scope="session")
def edit_json() -> Callable[..., None]:
    """Changes a JSON file in place: `edit_json(path, lambda record: …)`."""

    def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
        record = json.loads(path.read_text(encoding="utf-8"))
        change(record)
        path.write_text(json.dumps(record), encoding="utf-8")

    return edit


@pytest.fixture(scope="session")
def seal_weights(edit_json: Callable[..., None]) -> Callable[[Path], None]:
    """Updates the digest in a folder's `backbone.json`."""

    def seal(folder: Path) -> None:
        digest = digest_file(folder / "weights.safetensors")
        edit_json(folder / "backbone.json", lambda r: r.update(weights_sha256=digest))

    return seal


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos for the tiny trainings of one test file."""
    return write_manifest(tmp_path_factory.mktemp("trainer") / "manifest")


@pytest.fixture
def folder(saved_bundle: Path, tmp_path: Path) -> Path:
    """A copy of a bundle's folder, free to change."""
    shutil.copytree(saved_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def backbone_folder(backbone: Backbone, tmp_path: Path) -> Path:
    save_backbone(backbone, tmp_path / "backbone")
    return tmp_path / "backbone"
