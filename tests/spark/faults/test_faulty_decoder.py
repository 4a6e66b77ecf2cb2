"""A photo that kills the process that decodes it is rejected, and no other photo is."""

import io
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from schemas.rejects import RejectReason
from seer_model.backbones.embedder import EmbeddedPhoto, PhotoEmbedder
from seer_model.backbones.weights import random_backbone
from seer_model.photos.source import PhotoSource
from tests.spark.faults.conftest import Published
from tests.support.manifest_rows import (
    BY_RUN,
    Categorize,
    DrawPhoto,
    ReadCategories,
    Rows,
    WriteManifest,
    row,
)
from tests.support.paths import ROOT
from tests.support.processes import command_of

FAULTY = f"{Path(__file__).parent / 'faulty_decoder'}:{ROOT}"
"""The PYTHONPATH of a process with the fault."""


def photo_of(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


ENDS, IS_KILLED = photo_of(61, 67), photo_of(67, 61)


@pytest.fixture(scope="module")
def embedder() -> PhotoEmbedder:
    return PhotoEmbedder.open(random_backbone("regnety_002", image_size=64))


@pytest.fixture
def _faulty_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", FAULTY)


@pytest.mark.usefixtures("_faulty_children")
def test_isolated_only_the_photo_that_kills_the_process_is_rejected(
    embedder: PhotoEmbedder, draw_photo: DrawPhoto
) -> None:
    good = [draw_photo("warm/red", seed) for seed in range(6)]
    mixed = [good[0], ENDS, ENDS, good[1], IS_KILLED, good[2], b"", *good[3:], ENDS]
    embedded = list(embedder.embed((PhotoSource(None, data) for data in mixed), isolated=True))
    assert [photo.reject_reason for photo in embedded] == [
        None,
        RejectReason.UNREADABLE,
        RejectReason.UNREADABLE,
        None,
        RejectReason.READ_FAILED,
        None,
        RejectReason.EMPTY_FILE,
        *[None] * 3,
        RejectReason.UNREADABLE,
    ]
    alone = list(embedder.embed(PhotoSource(None, data) for data in good))
    assert vectors(embedded) == vectors(alone)


def test_isolated_a_process_that_does_not_start_is_an_error(
    embedder: PhotoEmbedder, draw_photo: DrawPhoto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(7)", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="ended with code 7"):
        list(embedder.embed([PhotoSource(None, draw_photo("warm/red"))], isolated=True))


def vectors(embedded: list[EmbeddedPhoto]) -> list[bytes]:
    return [photo.vector.tobytes() for photo in embedded if photo.vector is not None]


def test_isolated_a_closed_generator_leaves_no_process(
    embedder: PhotoEmbedder, draw_photo: DrawPhoto
) -> None:
    def children() -> set[int]:
        found = psutil.Process().children(recursive=True)
        return {p.pid for p in found if "spawn_main" in " ".join(command_of(p))}

    before = children()
    photo = draw_photo("warm/red")
    embedding = embedder.embed((PhotoSource(None, photo) for _ in range(10_000)), isolated=True)
    next(embedding)
    assert len(children() - before) == 1
    embedding.close()
    assert children() <= before


@pytest.mark.spark
@pytest.mark.slow
def test_the_job_rejects_the_photo_and_keeps_the_others(
    spark: SparkSession,
    rows: Rows,
    manifest: Path,
    published: Published,
    write_manifest: WriteManifest,
    categorize: Categorize,
    read_categories: ReadCategories,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = rows_by_listing(published.table)
    faulty = [row(f"faulty {i}", image_bytes=ENDS) for i in range(3)]
    half = row(rows[0]["listing_id"], 2, image_bytes=ENDS)
    write_manifest(manifest, [*faulty[:1], *rows[:9], half, *faulty[1:], *rows[9:]])
    store = ["--embeddings", str(tmp_path / "fresh store")]
    with monkeypatch.context() as patch:
        # Spark starts new Python workers for another environment.
        patch.setitem(spark.sparkContext.environment, "PYTHONPATH", FAULTY)
        first = categorize(manifest, published.output, *store)
    table = read_categories(published.output).drop_columns(BY_RUN)
    # The store keeps the reason for the photo that killed a process: it will not kill another.
    again = categorize(manifest, published.output, *store)
    assert read_categories(published.output).drop_columns(BY_RUN).equals(table)
    for found, embedded in ((first, len(rows) + 4), (again, 0)):
        assert found["photos_embedded"] == embedded
        assert found["reject_reasons"] == {"unreadable": 3}
    found = rows_by_listing(table)
    assert {found.pop(f"faulty {i}")["reject_reason"] for i in range(3)} == {"unreadable"}
    of_half = {"images_rejected": 1, "image_rejects": [(2, "unreadable")]}
    assert found == expected | {"listing 00": expected["listing 00"] | of_half}


def rows_by_listing(table: pa.Table) -> dict[str, dict[str, object]]:
    return {found["listing_id"]: found for found in table.to_pylist()}
