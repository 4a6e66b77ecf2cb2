"""Listings of a partition, and how the job is called in another process."""

from pathlib import Path

import pytest

from tests.spark.manifest_rows import DS, DrawPhoto, Rows, WriteManifest, row


@pytest.fixture
def rows(draw_photo: DrawPhoto) -> Rows:
    """Twelve listings with two photos each."""
    names = ["warm/red", "warm/yellow", "cold/blue", "cold/green"]
    return [
        row(f"listing {i:02}", n, image_bytes=draw_photo(names[i % 4], 10 * i + n, spread=5))
        for i in range(12)
        for n in range(2)
    ]


@pytest.fixture
def listings(rows: Rows) -> list[str]:
    return sorted({row["listing_id"] for row in rows})


@pytest.fixture
def manifest(write_manifest: WriteManifest, rows: Rows, tmp_path: Path) -> Path:
    return write_manifest(tmp_path / "manifest", rows)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "categories"


@pytest.fixture
def flags(manifest: Path, output: Path, bundle_folder: Path, tracking_uri: str) -> list[str]:
    """Of the job."""
    options = {
        "manifest": manifest,
        "ds": DS,
        "model": bundle_folder,
        "output": output,
        "tracking-uri": tracking_uri,
    }
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]
