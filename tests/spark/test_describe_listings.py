"""jobs.describe_listings: what is said of photos; attributes; and one pass for three jobs."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from PIL import Image

from jobs import describe_listings, screen_listings, train_head
from schemas.columns import column_problems
from schemas.descriptions import DESCRIPTIONS
from tests.support.embedding_rows import error_line
from tests.support.manifest_rows import (
    DS,
    ODD_IDS,
    Categorize,
    DrawPhoto,
    WriteManifest,
    row,
)
from tests.support.photo_server import ALLOWED, photo_server
from tests.support.written_photos import write_on

pytestmark = [pytest.mark.spark, pytest.mark.slow]

GERMAN = """category_id,category_path
warm,Warme Sachen
warm/red,Warme Sachen > Rote Sachen
cold,Kalte Sachen
"""
Describe = Callable[..., dict[str, Any]]


@pytest.fixture
def describe(bundle_folder: Path, tracking_uri: str, tmp_path: Path) -> Describe:
    """Runs the job in this process and gives its report; `code` is the exit code expected."""

    def run(manifest: Path, *flags: str, code: int = 0) -> dict[str, Any]:
        report = tmp_path / "report.json"
        argv = ["--manifest", str(manifest), "--ds", DS, "--model", str(bundle_folder)]
        argv += ["--output", str(tmp_path / "descriptions"), "--tracking-uri", tracking_uri]
        assert describe_listings.main([*argv, "--report", str(report), *flags]) == code
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return run


def published(folder: Path) -> dict[tuple[str, int, str], dict[str, Any]]:
    table = ds.dataset(folder / "descriptions" / f"ds={DS}").to_table()
    assert not column_problems(table.schema, DESCRIPTIONS, DESCRIPTIONS.names)
    return {(r["listing_id"], r["image_index"], r["locale"]): r for r in table.to_pylist()}


@pytest.fixture(scope="module")
def tones(
    tmp_path_factory: pytest.TempPathFactory,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    bundle_folder: Path,
) -> Path:
    """The model of an attribute, for warm categories alone."""
    folder = tmp_path_factory.mktemp("tones")
    rows = [
        row(
            f"{colour} {number}",
            image_bytes=draw_photo(colour, seed=500 + number),
            split="train" if number % 2 else "val",
            attributes=[("tone", colour.partition("/")[2]), ("size", "")],
        )
        for colour in ("warm/red", "warm/yellow")
        for number in range(24)
    ]
    manifest = write_manifest(folder / "manifest", rows)
    flags = ("--attribute", "tone", "--attribute-categories", "warm", "--output", folder / "model")
    more = ("--manifest", manifest, "--backbone", bundle_folder / "backbone", "--unseen-share", "0")
    assert (
        train_head.main([str(flag) for flag in (*flags, *more, "--target-precision", "0.7")]) == 0
    )
    return folder / "model"


def test_what_is_known_is_said_in_every_language(
    describe: Describe,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    broken_photos: dict[str, bytes],
    tones: Path,
    tmp_path: Path,
) -> None:
    grey = Image.new("RGB", (960, 960), "grey")
    rows = [row(name, image_bytes=draw_photo("cold/blue", seed=3)) for name in ODD_IDS]
    rows += [
        row("two", 1, image_bytes=draw_photo("warm/red", seed=1)),
        row("two", 0, image_bytes=draw_photo("warm/red", seed=2)),
        row("two", 2, image_bytes=broken_photos["truncated"]),
        row("written", image_bytes=write_on(grey, "<i>Sale</i> today", 0.1, 0)),
        row("private", image_bytes=write_on(grey, "Call 0171 2345678", 0.1, 0)),
        row("nothing"),
        row(None, image_bytes=draw_photo("warm/red", seed=5)),
    ]
    manifest = write_manifest(tmp_path / "manifest", rows)
    (tmp_path / "de.csv").write_text(GERMAN, encoding="utf-8")
    page = tmp_path / "page.html"
    figures = describe(
        manifest,
        *("--attributes", str(tones), "--locale", "en", "--locale", "de"),
        *("--names", f"de={tmp_path / 'de.csv'}", "--page", str(page)),
    )
    found = published(tmp_path)
    listed = [each for each in rows if each["listing_id"] is not None]
    assert len(found) == 2 * len(listed)
    first, second = found["two", 0, "en"], found["two", 1, "de"]
    assert first["alt_text"].startswith(("Red", "Warm"))
    assert "tone: red" in first["alt_text"]
    assert first["alt_text"].endswith("photo 1 of 2")
    assert second["alt_text"].startswith(("Rote Sachen", "Warme Sachen"))
    assert second["alt_text"].endswith("Foto 2 von 2")
    kinds = [each["kind"] for each in first["statements"]]
    assert (kinds[0], kinds[-1]) == ("category", "position")
    rejected = found["two", 2, "en"]
    assert (rejected["alt_text"], rejected["reject_reason"]) == (None, "truncated")
    assert found["nothing", 0, "en"]["reject_reason"] == "no_photo"
    for name in ODD_IDS:
        assert "tone" not in (found[name, 0, "en"]["alt_text"] or ""), "for warm things alone"
        german = found[name, 0, "de"]
        is_known = any(each["kind"] == "category" for each in german["statements"])
        assert german["alt_text"].startswith("Kalte Sachen" if is_known else "Artikel")
    assert "<i>Sale</i>" in found["written", 0, "en"]["alt_text"]
    assert "0171" not in (found["private", 0, "en"]["alt_text"] or "")

    assert figures["photos"] == len(listed)
    assert figures["rows_rejected"] == 4
    assert figures["texts"] + figures["rows_without_text"] + 4 == len(found)
    assert figures["longest_text"] <= 125
    assert figures["categories_without_name"] == {"en": 0, "de": 0}
    assert figures["rows_without_listing"] == 1
    html = page.read_text(encoding="utf-8")
    assert "<i>Sale" not in html
    assert "data:image/jpeg" in html


def test_one_pass_serves_three_jobs(
    describe: Describe,
    categorize: Categorize,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    bundle_folder: Path,
    tracking_uri: str,
    tmp_path: Path,
) -> None:
    photos = {f"{n}.jpg": draw_photo("warm/red", seed=n) for n in range(3)}
    with photo_server(photos, {}) as (address, asked):
        rows = [
            row(name, image_uri=f"{address}/{name}", image_key=sha256(data).hexdigest())
            for name, data in photos.items()
        ]
        manifest = write_manifest(tmp_path / "manifest", rows)
        store = ("--embeddings", str(tmp_path / "store"), *ALLOWED)
        signals = ("--signals", "text", "--signals", "colours")
        categorize(manifest, tmp_path / "categories", *store, *signals)
        assert describe(manifest, *store)["photos_embedded"] == 0
        argv = ["--manifest", str(manifest), "--ds", DS, "--tracking-uri", tracking_uri]
        argv += ["--backbone", str(bundle_folder / "backbone"), *store]
        assert screen_listings.main([*argv, "--output", str(tmp_path / "screening")]) == 0
        assert asked == dict.fromkeys(photos, 1)
        # And the other way round.
        asked.clear()
        other = ("--embeddings", str(tmp_path / "other"), *ALLOWED)
        assert describe(manifest, *other)["photos_embedded"] == len(photos)
        categorize(manifest, tmp_path / "categories", *other)
        assert asked == dict.fromkeys(photos, 1)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--locale", "fr"), "--locale fr: No such file"),
        (("--locale", "en", "--locale", "en"), "a language is there twice"),
        (("--names", "de=none.csv"), "none.csv"),
        (("--names", "de"), "--names de: expected LANGUAGE=FILE"),
        (("--attributes", "MODEL"), "is no model of an attribute"),
    ],
)
def test_mistakes_are_said_in_one_line(
    describe: Describe,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    bundle_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    said: str,
) -> None:
    rows = [row("a", image_bytes=draw_photo("warm/red", seed=0))]
    manifest = write_manifest(tmp_path / "manifest", rows)
    flags = tuple(flag.replace("MODEL", str(bundle_folder)) for flag in flags)
    describe(manifest, *flags, code=2)
    assert said in error_line(capsys)


def test_an_attribute_needs_labels_and_no_taxonomy(
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [row("a", image_bytes=draw_photo("warm/red", seed=0), split="train")]
    manifest = ["--manifest", str(write_manifest(tmp_path / "manifest", rows))]
    tracking = ["--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    assert train_head.main([*manifest, *tracking, "--attribute", "size"]) == 3
    assert "no labelled listing" in error_line(capsys)
    assert train_head.main([*manifest, *tracking]) == 2
    assert "give either --taxonomy or --attribute" in error_line(capsys)
