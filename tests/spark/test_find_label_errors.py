"""jobs.find_label_errors: which labels it doubts, and how they get into the review queue."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import find_label_errors
from jobs.stages.review_queue import read_queue
from tests.support.decisions import decision, write_decisions
from tests.support.embedding_rows import error_line
from tests.support.manifest_rows import DS, DrawPhoto, WriteManifest, row

pytestmark = pytest.mark.spark

COLOURS = ["warm/red", "warm/yellow", "cold/blue", "cold/green"]
TREE = "category_id,category_path\nwarm,Warm\ncold,Cold\n" + "".join(
    f"{colour},{colour.title().replace('/', ' > ')}\n" for colour in COLOURS
)
WRONG = {"cold/blue 3", "warm/red 5", "cold/green 7"}
Find = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def manifest(
    draw_photo: DrawPhoto,
    write_manifest: WriteManifest,
    broken_photos: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Eighty labelled listings, of which three have another colour's label; and some of no use."""
    rows = []
    for colour in COLOURS:
        for i in range(20):
            listing = f"{colour} {i}"
            label = "warm/yellow" if listing in WRONG else colour
            photo = draw_photo(colour, i, spread=6)
            rows.append(row(listing, image_bytes=photo, category_id=label))
    rows.append(row("broken", image_bytes=broken_photos["truncated"], category_id="warm/red"))
    rows.append(row("alone", image_bytes=draw_photo("warm/red", 99), category_id="warm"))
    rows.append(row("without", image_bytes=draw_photo("warm/red", 98)))
    return write_manifest(tmp_path_factory.mktemp("labelled") / "manifest", rows)


@pytest.fixture
def find(manifest: Path, bundle_folder: Path, tracking_uri: str, tmp_path: Path) -> Find:
    """Runs the job in this process and gives its report; `code` is the exit code expected."""
    (tmp_path / "tree.csv").write_text(TREE, encoding="utf-8")

    def run(*flags: str, code: int = 0) -> dict[str, Any]:
        report = tmp_path / "report.json"
        argv = ["--manifest", str(manifest), "--ds", DS, "--taxonomy", str(tmp_path / "tree.csv")]
        argv += ["--backbone", str(bundle_folder / "backbone"), "--output", str(tmp_path / "queue")]
        argv += ["--tracking-uri", tracking_uri, "--report", str(report), "--budget", "10"]
        assert find_label_errors.main([*argv, *flags]) == code
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return run


def test_what_it_doubts(find: Find, tmp_path: Path) -> None:
    figures = find("--embeddings", str(tmp_path / "store"))
    assert (figures["listings"], figures["labels_alone"], figures["selected"]) == (81, 1, 10)
    assert 1 <= figures["probably_wrong"] <= 8

    queue = read_queue(tmp_path / "queue", DS).to_pylist()
    assert {each["listing_id"] for each in queue[:6]} >= WRONG
    assert [each["place"] for each in queue] == list(range(1, 11))
    first = queue[0]
    assert (first["selection"], first["category_id"]) == ("suspect", "warm/yellow")
    assert first["category_path"] == ["Warm", "Yellow"]
    assert first["explanation"].startswith("labelled Yellow (0.")
    assert "warm/yellow" in [each["category_id"] for each in first["candidates"]]
    assert len(first["candidates"]) == 5
    assert first["run_id"] == figures["run_id"]

    labels = write_decisions(
        tmp_path / "labels",
        decision("cold/blue 3", category_id="cold/blue"),
        decision("warm/red 5", category_id="warm/yellow"),
    )
    again = find("--embeddings", str(tmp_path / "store"), "--labels", str(labels))
    assert again["photos_embedded"] == 0
    assert (again["labels_changed"], again["labels_confirmed"]) == (1, 1)
    asked = {each["listing_id"] for each in read_queue(tmp_path / "queue", DS).to_pylist()}
    assert "cold/green 7" in asked
    assert not asked & {"cold/blue 3", "warm/red 5"}


def test_what_it_cannot_judge(
    find: Find, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tree.csv").write_text("category_id,category_path\nwarm,Warm\n", encoding="utf-8")
    find(code=3)
    assert "4 labels are no categories of the taxonomy" in error_line(capsys)
