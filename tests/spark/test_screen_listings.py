"""jobs.screen_listings: known photos, text, what cannot be read; and one pass for two jobs."""

import json
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from demo.samples.products import KINDS
from demo.samples.scenes import draw_scene
from jobs import list_known_photos, screen_listings
from schemas.columns import column_problems
from schemas.screening import SCREENING
from seer_model.backbones.backbone import save_backbone
from seer_model.backbones.weights import random_backbone
from tests.support.edited_photos import as_jpeg, edits
from tests.support.embedding_rows import error_line
from tests.support.manifest_rows import DS, ODD_IDS, Categorize, WriteManifest, row
from tests.support.photo_server import ALLOWED, photo_server

pytestmark = [pytest.mark.spark, pytest.mark.slow]

RULES = """
[[text]]
name = "telephone"
action = "review"
pattern = "telephone"

[[text]]
name = "<script>alert(1)</script>"
action = "block"
phrases = ["paypal friends"]
"""
Screen = Callable[..., dict[str, Any]]


def scene(number: int) -> Image.Image:
    return draw_scene(KINDS[number % 6], number, np.random.default_rng(number))


def with_text(number: int, text: str) -> bytes:
    image = scene(number).resize((640, 640))
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 40)
    ImageDraw.Draw(image).text((40, 100), text, "white", font, stroke_width=2, stroke_fill="black")
    return as_jpeg(image)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos that must not come back."""
    folder = tmp_path_factory.mktemp("removed")
    for number in (0, 1):
        (folder / f"{number}.jpg").write_bytes(as_jpeg(scene(number)))
    path = folder / "known.parquet"
    flags = ("--photos", str(folder), "--rule", "counterfeit", "--action", "block")
    assert list_known_photos.main([*flags, "--output", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def large_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that takes photos large enough for their hashes to be exact."""
    folder = tmp_path_factory.mktemp("large") / "backbone"
    save_backbone(random_backbone("regnety_002", image_size=224), folder)
    return folder


@pytest.fixture
def screen(bundle_folder: Path, tracking_uri: str, tmp_path: Path) -> Screen:
    """Runs the job in this process and gives its report; `code` is the exit code expected."""
    (tmp_path / "rules.toml").write_text(RULES, encoding="utf-8")

    def run(
        manifest: Path, *flags: str, backbone: Path | None = None, code: int = 0
    ) -> dict[str, Any]:
        report = tmp_path / "report.json"
        argv = ["--manifest", str(manifest), "--ds", DS, "--output", str(tmp_path / "screening")]
        backbone = backbone or bundle_folder / "backbone"
        argv += ["--backbone", str(backbone), "--tracking-uri", tracking_uri]
        argv += ["--rules", str(tmp_path / "rules.toml"), "--report", str(report)]
        assert screen_listings.main([*argv, *flags]) == code
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return run


def published(folder: Path) -> dict[str, dict[str, Any]]:
    table = ds.dataset(folder / "screening" / f"ds={DS}").to_table()
    assert not column_problems(table.schema, SCREENING, SCREENING.names)
    rows = {each["listing_id"]: each for each in table.to_pylist()}
    assert len(rows) == len(table), "one row a listing"
    return rows


def rules_of(listing: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(each["rule"], each["action"], each["image_index"]) for each in listing["findings"]]


def test_every_listing_has_an_action_that_its_findings_explain(
    screen: Screen,
    write_manifest: WriteManifest,
    broken_photos: dict[str, bytes],
    known: Path,
    large_backbone: Path,
    tmp_path: Path,
) -> None:
    rows = [row(f"copy {name}", image_bytes=data) for name, data in edits(scene(0))]
    rows += [row(listing, image_bytes=as_jpeg(scene(7))) for listing in ODD_IDS]
    rows += [
        row("calls", 0, image_bytes=as_jpeg(scene(8))),
        row("calls", 1, image_bytes=with_text(9, "Tel 0171 2345678")),
        row("pays", image_bytes=with_text(10, "PayPal friends 0171 2345678")),
        row("both", 0, image_bytes=with_text(11, "Tel 0171 2345678")),
        row("both", 1, image_bytes=as_jpeg(scene(1))),
        row("<b>broken</b>", image_bytes=broken_photos["truncated"]),
        row("half", 0, image_bytes=broken_photos["truncated"]),
        row("half", 1, image_bytes=as_jpeg(scene(12))),
        row("nothing"),
        row(None, image_bytes=as_jpeg(scene(13))),
    ]
    manifest = write_manifest(tmp_path / "manifest", rows)
    page = tmp_path / "page.html"
    flags = ("--known-photos", str(known), "--page", str(page))
    figures = screen(manifest, *flags, backbone=large_backbone)
    found = published(tmp_path)
    assert set(found) == {each["listing_id"] for each in rows} - {None}

    for name, _ in edits(scene(0)):
        (finding,) = found[f"copy {name}"]["findings"]
        assert (finding["rule"], finding["kind"]) == ("counterfeit", "known_photo")
        assert finding["evidence"].startswith("0.jpg: ")
        assert found[f"copy {name}"]["action"] == finding["action"]
    for edit in ("compressed", "half the size", "mirrored", "brighter", "framed"):
        assert found[f"copy {edit}"]["action"] == "block"
    for listing in ODD_IDS:
        assert (found[listing]["action"], found[listing]["findings"]) == ("allow", [])
    assert rules_of(found["calls"]) == [("telephone", "review", 1)]
    assert found["calls"]["findings"][0]["evidence"].replace(" ", "") == "01712345678"
    assert rules_of(found["pays"]) == [
        ("<script>alert(1)</script>", "block", 0),
        ("telephone", "review", 0),
    ]
    # The strictest comes first, and decides.
    assert rules_of(found["both"]) == [("counterfeit", "block", 1), ("telephone", "review", 0)]
    assert found["both"]["action"] == "block"
    # What cannot be screened is not waved through.
    for listing, reason in (("<b>broken</b>", "truncated"), ("nothing", "no_photo")):
        assert rules_of(found[listing]) == [("unreadable", "review", 0)]
        assert found[listing]["findings"][0]["evidence"] == reason
    assert found["half"]["action"] == "allow"
    assert (found["half"]["photos_screened"], found["half"]["photos_rejected"]) == (1, 1)

    actions = Counter(each["action"] for each in found.values())
    assert {each: figures[each] for each in ("allow", "review", "block")} == actions
    assert figures["photos"] == figures["photos_screened"] + figures["photos_rejected"]
    assert figures["rows_without_listing"] == 1
    assert figures["listings_by_rule"]["telephone"] == 3
    assert {each["rules_digest"] for each in found.values()} == {figures["rules_digest"]}
    html = page.read_text(encoding="utf-8")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<b>broken" not in html
    assert html.count("data:image/jpeg") >= 8

    # A rerun is harmless; other rules need no photo.
    with_reviews = RULES + '\n[unreadable]\nphotos = "any"\naction = "block"\n'
    (tmp_path / "rules.toml").write_text(with_reviews, encoding="utf-8")
    screen(manifest)
    found = published(tmp_path)
    assert found["half"]["action"] == "block"
    assert found["copy compressed"]["action"] == "allow"


def test_one_pass_serves_both_jobs_whichever_comes_first(
    screen: Screen,
    categorize: Categorize,
    write_manifest: WriteManifest,
    known: Path,
    tmp_path: Path,
) -> None:
    photos = {f"{n}.jpg": as_jpeg(scene(n)) for n in range(5)}
    photos["5.jpg"] = with_text(5, "Tel 0171 2345678")
    with photo_server(photos, {}) as (address, asked):
        rows = [
            row(name, image_uri=f"{address}/{name}", image_key=sha256(data).hexdigest())
            for name, data in photos.items()
        ]
        manifest = write_manifest(tmp_path / "manifest", rows)

        def both(order: str) -> None:
            store = ("--embeddings", str(tmp_path / order))
            flags = ("--known-photos", str(known), *store, *ALLOWED)
            asked.clear()
            if order == "screened first":
                first = screen(manifest, *flags)
                second = categorize(manifest, tmp_path / "categories", *store, *ALLOWED)
            else:
                signals = ("--signals", "hashes", "--signals", "text")
                first = categorize(manifest, tmp_path / "categories", *store, *signals, *ALLOWED)
                second = screen(manifest, *flags)
            assert (first["photos_embedded"], second["photos_embedded"]) == (len(photos), 0)
            assert asked == dict.fromkeys(photos, 1)

        both("screened first")
        found = published(tmp_path)
        assert [found[f"{n}.jpg"]["action"] for n in range(6)] == [
            *("block", "block", "allow", "allow", "allow", "review")
        ]
        both("categorized first")
        assert {name: each["findings"] for name, each in published(tmp_path).items()} == {
            name: each["findings"] for name, each in found.items()
        }

        # What an earlier run did not read is read now, and once.
        asked.clear()
        store = ("--embeddings", str(tmp_path / "without signals"))
        categorize(manifest, tmp_path / "categories", *store, *ALLOWED)
        flags = ("--known-photos", str(known), *store, *ALLOWED)
        assert screen(manifest, *flags)["photos_embedded"] == len(photos)
        assert screen(manifest, *flags)["photos_embedded"] == 0
        assert asked == dict.fromkeys(photos, 2)


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--rules", "none.toml"), 2, "--rules none.toml: No such file"),
        (("--known-photos", "none.parquet"), 2, "--known-photos none.parquet: No such file"),
        (("--ds", "2026-11-26"), 3, "2026-11-26"),
    ],
)
def test_mistakes_are_said_in_one_line(
    screen: Screen,
    write_manifest: WriteManifest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    manifest = write_manifest(tmp_path / "manifest", [row("a", image_bytes=as_jpeg(scene(0)))])
    screen(manifest, *flags, code=code)
    assert said in error_line(capsys)
    assert not (tmp_path / "screening" / f"ds={DS}").exists()
