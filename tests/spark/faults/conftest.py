"""A partition's listings, published once for all tests, and the flags of the main job."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest

from tests.support.manifest_rows import (
    BY_RUN,
    DS,
    Categorize,
    DrawPhoto,
    ReadCategories,
    Rows,
    WriteManifest,
    row,
)


class Published(NamedTuple):
    """A published partition, and the embedding store that its run has filled.

    `table` has its rows without the columns that differ from run to run.
    """

    output: Path
    store: Path
    run: str
    table: pa.Table


@pytest.fixture(scope="session")
def rows(draw_photo: DrawPhoto) -> Rows:
    """Twelve listings with two photos each."""
    names = ["warm/red", "warm/yellow", "cold/blue", "cold/green"]
    return [
        row(f"listing {i:02}", n, image_bytes=draw_photo(names[i % 4], 10 * i + n, spread=5))
        for i in range(12)
        for n in range(2)
    ]


@pytest.fixture(scope="session")
def listings(rows: Rows) -> list[str]:
    return sorted({row["listing_id"] for row in rows})


@pytest.fixture
def manifest(write_manifest: WriteManifest, rows: Rows, tmp_path: Path) -> Path:
    return write_manifest(tmp_path / "manifest", rows)


@pytest.fixture
def photos(rows: Rows) -> dict[str, bytes]:
    """The same photos by name, for a server: `0.jpg` and so on."""
    return {f"{i}.jpg": row["image_bytes"] for i, row in enumerate(rows)}


@pytest.fixture
def served_manifest(
    rows: Rows, write_manifest: WriteManifest, tmp_path: Path
) -> Callable[[str], Path]:
    """Writes a manifest of the same listings, their photos at an address."""

    def write(address: str) -> Path:
        served = [
            row(r["listing_id"], r["image_index"], image_uri=f"{address}/{i}.jpg")
            for i, r in enumerate(rows)
        ]
        return write_manifest(tmp_path / "served", served)

    return write


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "categories"


@pytest.fixture(scope="session")
def published_once(
    write_manifest: WriteManifest,
    rows: Rows,
    categorize: Categorize,
    read_categories: ReadCategories,
    tmp_path_factory: pytest.TempPathFactory,
) -> Published:
    folder = tmp_path_factory.mktemp("published")
    output, store = folder / "categories", folder / "store"
    manifest = write_manifest(folder / "manifest", rows)
    report = categorize(manifest, output, "--embeddings", str(store))
    assert report["photos_embedded"] == len(rows)
    table = read_categories(output).drop_columns(BY_RUN)
    return Published(output, store, report["run_id"], table)


@pytest.fixture
def published(published_once: Published, output: Path, tmp_path: Path) -> Published:
    """The manifest's categories, published to `output` by an earlier run, and its store."""
    store = tmp_path / "store"
    shutil.copytree(published_once.output, output, symlinks=True)
    shutil.copytree(published_once.store, store)
    return published_once._replace(output=output, store=store)


@pytest.fixture
def flags(manifest: Path, output: Path, bundle_folder: Path, tracking_uri: str) -> list[str]:
    """Flags of the job in another process."""
    options = {
        "manifest": manifest,
        "ds": DS,
        "model": bundle_folder,
        "output": output,
        "tracking-uri": tracking_uri,
    }
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]
