"""A tiny model, photos that can be read and some that cannot, the main job, and a cluster."""

import io
import json
import os
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw
from pyspark.sql import SparkSession

from jobs import categorize_listings, maintain_embeddings
from schemas.categories import check_categories
from schemas.manifest import MANIFEST
from schemas.taxonomy import Category, Taxonomy
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.backbones.weights import random_backbone
from seer_model.categorizer.bundle import Bundle, load_bundle, save_bundle
from seer_model.categorizer.thresholds import Calibration
from seer_model.photos.source import PhotoSource
from seer_model.training.fit import fit_bundle
from seer_model.training.labelled import LabelledPhotos
from tests.support.conversions import convert_once
from tests.support.embedding_rows import ONE, TWO, Upkeep, add_run
from tests.support.paths import ROOT
from tests.support.spark_python import CONVERSIONS
from tests.support.standalone_cluster import TIMEOUT_S, Job, daemon, wait_for
from tests.support.tracking_database import new_database

DS = "2026-11-25"
COLOURS = {
    "warm/red": (205, 40, 40),
    "warm/yellow": (225, 190, 40),
    "cold/blue": (40, 60, 200),
    "cold/green": (40, 160, 70),
}

Row = Mapping[str, Any]


@pytest.fixture(scope="session", autouse=True)
def _converted_once() -> None:
    convert_once(Path(os.environ[CONVERSIONS]))


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: to make its tables takes seconds."""
    return new_database(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture(scope="session")
def draw_photo() -> Callable[..., bytes]:
    """Draws a photo of about the colour of a category, another for every seed."""

    def draw(category_id: str, seed: int = 0, form: str = "JPEG", spread: float = 50) -> bytes:
        rng = np.random.default_rng(seed)
        colour = np.array(COLOURS[category_id]) + rng.normal(0, spread, 3)
        pixels = np.clip(colour + rng.normal(0, 10, (72, 96, 3)), 0, 255).astype(np.uint8)
        image = Image.fromarray(pixels)
        x, y = rng.integers(5, 60, 2).tolist()
        patch = tuple(rng.integers(0, 255, 3).tolist())
        ImageDraw.Draw(image).rectangle((x, y, x + 20, y + 12), fill=patch)
        buffer = io.BytesIO()
        image.save(buffer, form)
        return buffer.getvalue()

    return draw


@pytest.fixture(scope="session")
def broken_photos(draw_photo: Callable[..., bytes]) -> dict[str, bytes]:
    """Bytes that cannot be used, by the reason that must be given for them."""
    png = draw_photo("warm/red", form="PNG")
    jpeg = draw_photo("warm/red")
    header = b"IHDR" + (60_000).to_bytes(4) * 2 + png[24:29]
    return {
        "unreadable": png[:40] + bytes(80) + png[120:],
        "truncated": jpeg[: len(jpeg) // 2],
        "empty_file": b"",
        "not_an_image": b"<!DOCTYPE html><html><body>404</body></html>",
        "too_large": png[:12] + header + zlib.crc32(header).to_bytes(4) + png[33:],
    }


@pytest.fixture(scope="session")
def bundle_folder(
    draw_photo: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model of two tops with two colours each, whose thresholds leave something for review."""
    backbone = random_backbone("regnety_002", image_size=64)
    embedder = PhotoEmbedder.open(backbone)
    tops = [Category(top, (top.title(),), None) for top in ("warm", "cold")]
    leaves = [
        Category(name, tuple(name.title().split("/")), name.partition("/")[0]) for name in COLOURS
    ]

    def label(count: int, seed: int) -> LabelledPhotos:
        names = [name for name in COLOURS for _ in range(count)]
        photos = [draw_photo(name, seed + i) for i, name in enumerate(names)]
        embedded = embedder.embed(PhotoSource(None, photo) for photo in photos)
        vectors = [photo.vector for photo in embedded if photo.vector is not None]
        return LabelledPhotos([str(seed + i) for i in range(len(names))], names, np.stack(vectors))

    fitted = fit_bundle(
        backbone,
        Taxonomy([*tops, *leaves], "2026-01"),
        label(12, seed=1000),
        label(12, seed=2000),
        target_precision=0.8,
        unseen_share=0.0,
        seed=0,
        origin={"manifest": "drawn"},
    ).bundle
    calibration = Calibration(fitted.calibration.temperature, (0.8, 0.75), 0.8)
    folder = tmp_path_factory.mktemp("model") / "colours"
    save_bundle(replace(fitted, calibration=calibration), folder)
    return folder


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path) -> Bundle:
    return load_bundle(bundle_folder)


@pytest.fixture(scope="session")
def runtime(bundle: Bundle) -> str:
    """What runs its backbone on this processor."""
    return open_runtime(bundle.backbone).name


@pytest.fixture(scope="session")
def write_manifest() -> Callable[..., Path]:
    """Writes rows as a partition of a manifest, with nulls wherever a bad producer puts them."""
    schema = pa.schema([field.with_nullable(True) for field in MANIFEST])

    def write(
        manifest: Path, rows: Iterable[Row], ds: str = DS, schema: pa.Schema = schema
    ) -> Path:
        partition = manifest / f"ds={ds}"
        partition.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(list(rows), schema=schema)
        pq.write_table(table, partition / "part-0.parquet")
        return manifest

    return write


@pytest.fixture(scope="session")
def categorize(
    spark: SparkSession, bundle_folder: Path, tracking_uri: str
) -> Callable[..., dict[str, Any]]:
    """Runs the job in this process and gives its report; `code` is the exit code expected."""

    def run(manifest: Path, output: Path | str, *flags: str, code: int = 0) -> dict[str, Any]:
        report = manifest.parent / "report.json"
        report.unlink(missing_ok=True)
        options = {
            "manifest": manifest,
            "ds": DS,
            "model": bundle_folder,
            "output": output,
            "tracking-uri": tracking_uri,
            "report": report,
        }
        if "--max-unread-share" not in flags:
            options["max-unread-share"] = 1  # Many photos of the tests' few are not there.
        argv = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        assert categorize_listings.main([*argv, *flags]) == code
        assert report.exists() == (code == 0)
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return run


@pytest.fixture(scope="session")
def read_categories() -> Callable[[Path], pa.Table]:
    """Reads what readers see, checked, by listing."""

    def read(output: Path) -> pa.Table:
        table = pq.read_table(output / f"ds={DS}").sort_by("listing_id")
        check_categories(table, str(output))
        return table

    return read


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("master") / "log"
    command = ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1"]
    with daemon(log, *command, "--port", "0", "--webui-port", "0") as process:
        yield wait_for(r"Starting Spark master at (spark://\S+)", process, log)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dist") / "seer-categories.zip"
    script = ROOT / "scripts" / "package_zip.py"
    subprocess.run(
        [sys.executable, script, "--root", ROOT, "--output", path], check=True, timeout=TIMEOUT_S
    )
    return path


@pytest.fixture
def job(
    write_manifest: Callable[..., Path],
    draw_photo: Callable[..., bytes],
    broken_photos: dict[str, bytes],
    bundle_folder: Path,
    tracking_uri: str,
    tmp_path: Path,
) -> Job:
    photos = [draw_photo("warm/red", i) for i in range(40)] + list(broken_photos.values())
    file = tmp_path / "photo.jpg"
    file.write_bytes(photos[0])
    rows = [
        {"listing_id": f"listing {i % 30}", "image_index": i // 30, "image_bytes": photo}
        for i, photo in enumerate(photos)
    ]
    rows.append({"listing_id": "a file", "image_index": 0, "image_uri": str(file)})
    rows.append({"listing_id": "no file", "image_index": 0, "image_uri": str(tmp_path / "none")})
    folder = tmp_path / "shell"
    folder.mkdir()
    arguments = {
        "--manifest": write_manifest(tmp_path / "manifest", rows).as_uri(),
        "--ds": DS,
        "--model": bundle_folder,
        "--output": tmp_path / "categories",
        "--embeddings": tmp_path / "store",
        "--tracking-uri": tracking_uri,
        "--report": tmp_path / "report.json",
    }
    return Job(folder, arguments, Counter(row["listing_id"] for row in rows))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two backbones: one with keys twice, in a run and across runs, one that needs no upkeep."""
    store = tmp_path / "store"
    add_run(store, ONE, "a", [["k1", "k2", "k1"], ["k3"]])
    add_run(store, ONE, "b", [["k2", "k4"], ["bad 1"]])
    add_run(store, TWO, "a", [["k1", "k2"]])
    return store


@pytest.fixture
def upkeep(spark: SparkSession, store: Path, tracking_uri: str, tmp_path: Path) -> Upkeep:
    """Runs the job in this process and gives its report; `code` is the exit code expected."""

    def run(*flags: str, code: int = 0) -> dict[str, Any]:
        report = tmp_path / "report.json"
        report.unlink(missing_ok=True)
        argv = ["--embeddings", str(store), "--report", str(report)]
        argv += ["--tracking-uri", tracking_uri, *flags]
        assert maintain_embeddings.main(argv) == code
        assert report.exists() == (code == 0)
        assert not list(store.glob("_scratch-*"))
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return run
