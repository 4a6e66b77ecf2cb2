"""Labelled listings, a registry, and the drawn bundle as versions in it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from seer_model import registry
from seer_model.bundle import Bundle, save_bundle
from seer_model.head import LinearHead

COLOURS = ("warm/red", "warm/yellow", "cold/blue", "cold/green")


@pytest.fixture(scope="package")
def labelled(
    tmp_path_factory: pytest.TempPathFactory,
    write_manifest: Callable[..., Path],
    draw_photo: Callable[..., bytes],
) -> Path:
    """A manifest of labelled listings in train, in no split (train as well), and in test."""
    rows = [
        {
            "listing_id": f"{split}-{colour}-{i}",
            "image_index": 0,
            "image_bytes": draw_photo(colour, seed=hash_of(split) + i),
            "category_id": colour,
            "split": split,
            "slices": [("tone", colour.partition("/")[0])],
        }
        for split, count in ((None, 6), ("train", 6), ("test", 4))
        for colour in COLOURS
        for i in range(count)
    ]
    rows.append({"listing_id": "unlabelled", "image_index": 0, "image_bytes": b"", "split": "test"})
    return write_manifest(tmp_path_factory.mktemp("labelled"), rows)


def hash_of(split: str | None) -> int:
    return {None: 100, "train": 200, "test": 300}[split]


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def register(database: str, bundle_folder: Path) -> Callable[[str], str]:
    """Registers the drawn bundle under a name, as train_head would."""

    def run(name: str, folder: Path = bundle_folder) -> str:
        registry.connect(database)
        with registry.tracked_run("train_head", {}):
            return registry.register_bundle(folder, name)

    return run


@pytest.fixture(scope="package")
def blind_folder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn bundle with a head that sees nothing, so that it is right by chance."""
    folder = tmp_path_factory.mktemp("blind") / "bundle"
    head = LinearHead(bundle.head.weight * 0, bundle.head.bias * 0)
    save_bundle(replace(bundle, head=head), folder)
    return folder
