"""jobs.map_categories: a day's categories, a manifest and labels in another tree."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from jobs import map_categories
from schemas.categories import check_categories
from schemas.taxonomy_readers import read_taxonomy
from seer_model.categorizer.bundle import Bundle
from tests.support.decisions import decision, write_decisions
from tests.support.embedding_rows import error_line
from tests.support.manifest_rows import (
    DS,
    Categorize,
    DrawPhoto,
    ReadCategories,
    WriteManifest,
    row,
)
from tests.support.paths import DATA

pytestmark = pytest.mark.spark

COLOURS = ["warm/red", "warm/yellow", "cold/blue", "cold/green"]
# The model's tree, as a file of the same version.
OLD = "# version: 2026-01\ncategory_id,category_path\nwarm,Warm\ncold,Cold\n" + "".join(
    f"{colour},{colour.title().replace('/', ' > ')}\n" for colour in COLOURS
)
NEW = "category_id,category_path\n1,All\n2,All > Fire\n3,All > Water\n4,All > Leaves\n"
# Red and yellow become one, blue one of two, green is retired; cold has no line.
MAP = "from_id,to_id\nwarm/red,2\nwarm/yellow,2\nwarm,2\ncold/blue,3\ncold/blue,4\ncold/green,\n"
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def day(
    categorize: Categorize,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    broken_photos: dict[str, bytes],
    bundle: Bundle,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A published day, and the files of both trees and of the mapping."""
    assert bundle.tree.taxonomy.version == "2026-01"
    folder = tmp_path_factory.mktemp("day")
    rows = [
        row(f"{colour} {i}", image_bytes=draw_photo(colour, i), category_id=colour, split="train")
        for colour in COLOURS
        for i in range(12)
    ]
    rows.append(row("broken", image_bytes=broken_photos["truncated"]))
    rows.append(row("odd", image_bytes=draw_photo("warm/red", 50), category_id="elsewhere"))
    manifest = write_manifest(folder / "manifest", rows)
    categorize(manifest, folder / "categories", "--embeddings", str(folder / "store"))
    for name, text in (("old.csv", OLD), ("new.csv", NEW), ("map.csv", MAP)):
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def run(day: Path, tracking_uri: str, tmp_path: Path) -> Run:
    """Runs the job in this process and gives its report; `code` is the exit code expected."""

    def run(*flags: object, code: int = 0) -> dict[str, Any]:
        report = tmp_path / "report.json"
        argv = ["--mapping", day / "map.csv", "--old-taxonomy", day / "old.csv"]
        argv += ["--taxonomy", day / "new.csv", "--output", tmp_path / "mapped"]
        argv += ["--tracking-uri", tracking_uri, "--report", report, *flags]
        assert map_categories.main([str(part) for part in argv]) == code
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return run


def by_listing(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {each["listing_id"]: each for each in table.to_pylist()}


def test_published_categories(
    day: Path, run: Run, read_categories: ReadCategories, tmp_path: Path
) -> None:
    unresolved = tmp_path / "unresolved.csv"
    figures = run("--categories", day / "categories", "--ds", DS, "--unresolved", unresolved)
    table = read_categories(tmp_path / "mapped")
    check_categories(table, "mapped")
    before, after = by_listing(read_categories(day / "categories")), by_listing(table)
    assert before.keys() == after.keys()
    expected = {"warm/red": "2", "warm/yellow": "2", "warm": "2"}
    lost = 0
    for name, old in before.items():
        new = after[name]
        target = expected.get(old["category_id"])
        assert (new["category_id"], new["taxonomy_version"]) == (target, figures["to_taxonomy"])
        assert new["category_path"] == (["All", "Fire"] if target else None)
        if old["decision"] == "assigned" and target is None:
            lost += 1
            assert (new["decision"], new["review_reason"]) == ("needs_review", "no_mapping")
        else:
            for column in ("decision", "review_reason", "score", "decided_by", "bundle_digest"):
                assert new[column] == old[column]
        # Only red and yellow are one category of the new tree: theirs are added up.
        fire = [c["score"] for c in old["candidates"] if c["category_id"].startswith("warm/")]
        assert [c["category_id"] for c in new["candidates"]] == ["2"] * bool(fire)
        assert [c["score"] for c in new["candidates"]] == pytest.approx([sum(fire)] * bool(fire))
    assert lost > 0
    assert figures["rows"] == figures["written"] == len(before)
    assert figures["ambiguous"] + figures["retired"] + figures["unmapped"] == lost
    assert len(unresolved.read_text(encoding="utf-8").splitlines()) == lost + 1
    assert {each["category_id"] for each in figures["unresolved_categories"]} <= {
        "cold",
        "cold/blue",
        "cold/green",
    }

    again = run("--categories", day / "categories", "--ds", DS)
    assert again["written"] == len(before)


def test_a_manifest_keeps_all_but_its_labels(day: Path, run: Run, tmp_path: Path) -> None:
    figures = run("--manifest", day / "manifest", "--ds", DS)
    assert (figures["mapped"], figures["ambiguous"], figures["retired"]) == (24, 12, 12)
    assert (figures["unknown"], figures["without_category"]) == (1, 1)
    before, after = (
        by_listing(ds.dataset(folder / f"ds={DS}").to_table())
        for folder in (day / "manifest", tmp_path / "mapped")
    )
    assert before.keys() == after.keys()
    assert [after[f"{colour} 3"]["category_id"] for colour in COLOURS] == ["2", "2", None, None]
    for name, old in before.items():
        assert after[name] | {"category_id": None} == old | {"category_id": None}


def test_several_are_told_apart_by_a_model(
    day: Path,
    run: Run,
    draw_photo: DrawPhoto,
    write_manifest: WriteManifest,
    bundle_folder: Path,
    tmp_path: Path,
) -> None:
    """The mapping runs the other way: warm may be red or yellow, says the model of the old tree."""
    rows = [
        row(f"{colour} {i}", image_bytes=draw_photo(colour, i, spread=6), category_id="2")
        for colour in COLOURS[:2]
        for i in range(8)
    ]
    manifest = write_manifest(tmp_path / "manifest", rows)
    back = tmp_path / "back.csv"
    back.write_text("from_id,to_id\n2,warm/red\n2,warm/yellow\n", encoding="utf-8")
    flags: list[object] = ["--mapping", back, "--old-taxonomy", day / "new.csv"]
    flags += ["--taxonomy", day / "old.csv", "--manifest", manifest, "--ds", DS]
    assert run(*flags)["ambiguous"] == 16
    by_model = ["--model", bundle_folder, "--embeddings", day / "store", "--least-share", "0.51"]
    # Photos that the store lacks cannot tell, and are not read.
    assert run(*flags, *by_model)["ambiguous"] == 16


def test_several_are_told_apart_by_stored_embeddings(
    day: Path, run: Run, bundle_folder: Path, tmp_path: Path
) -> None:
    back = tmp_path / "back.csv"
    back.write_text(
        "from_id,to_id\n"
        + "".join(f"{colour},warm/red\n{colour},cold/blue\n" for colour in COLOURS[:3])
        + "cold/green,cold/green\n",
        encoding="utf-8",
    )
    flags: list[object] = ["--mapping", back, "--taxonomy", day / "old.csv"]
    flags += ["--manifest", day / "manifest", "--ds", DS]
    flags += ["--model", bundle_folder, "--embeddings", day / "store", "--least-share", "0.6"]
    figures = run(*flags)
    assert figures["mapped"] == 12
    assert figures["by_score"] >= 30
    assert figures["by_score"] + figures["ambiguous"] == 36
    after = by_listing(ds.dataset(tmp_path / "mapped" / f"ds={DS}").to_table())
    for colour in ("warm/red", "cold/blue"):
        found = [after[f"{colour} {i}"]["category_id"] for i in range(12)]
        assert found.count(colour) >= 9


def test_labels_are_mapped_once(day: Path, run: Run, tmp_path: Path) -> None:
    version = {"taxonomy_version": "2026-01"}
    labels = write_decisions(
        tmp_path / "labels",
        decision("a", category_id="warm/red", **version),
        decision("b", category_id="cold/green", **version),
        decision("c", "unsure", **version),
        decision("d", category_id="warm/red", taxonomy_version="another"),
    )
    figures = run("--labels", labels)
    assert (figures["rows"], figures["written"], figures["retired"]) == (3, 2, 1)
    files = [str(file) for file in (tmp_path / "mapped").glob("*.parquet")]
    found = by_listing(ds.dataset(files).to_table())
    assert {name: each["category_id"] for name, each in found.items()} == {"a": "2", "c": None}
    assert {each["taxonomy_version"] for each in found.values()} == {figures["to_taxonomy"]}
    assert run("--labels", labels)["written"] == 0


@pytest.mark.photos
def test_shopifys_mapping_to_googles_tree(
    run: Run, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    """One listing of every category of Shopify's."""
    folder = DATA / "taxonomy"
    shopify = folder / "shopify" / "dist_en_categories.txt"
    google = folder / "google" / "taxonomy-with-ids.en-US.txt"
    (mapping,) = (folder / "shopify").glob("*_to_google_*")
    rows = [
        row(f"a {each.category_id}", image_uri="/x.jpg", category_id=each.category_id)
        for each in read_taxonomy(shopify)
    ]
    figures = run(
        *("--mapping", mapping, "--old-taxonomy", shopify, "--taxonomy", google),
        *("--manifest", write_manifest(tmp_path / "manifest", rows), "--ds", DS),
    )
    assert (figures["rows"], figures["mapped"], figures["unmapped"]) == (10_595, 10_535, 60)
    assert figures["categories_mapped"] == 10_535
    found = by_listing(ds.dataset(tmp_path / "mapped" / f"ds={DS}").to_table())
    tree = read_taxonomy(google)
    assert tree[found["a aa-1-13"]["category_id"]].path[0] == "Apparel & Accessories"
    assert found["a bu"]["category_id"] is None


@pytest.mark.parametrize(
    ("flags", "code", "expected"),
    [
        ([], 2, "give --categories, --labels or --manifest"),
        (["--labels", "x", "--categories", "y"], 2, "give one of --categories, --labels"),
        (["--manifest", "m"], 2, "--ds is required"),
        (["--labels", "x", "--model", "m"], 2, "--model and --embeddings go together"),
        (["--labels", "x", "--output", "x"], 2, "--output is --labels: name another"),
    ],
)
def test_flags_that_do_not_fit(
    run: Run, flags: list[str], code: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*flags, code=code)
    assert expected in error_line(capsys)


def test_a_day_of_another_tree_is_refused(
    day: Path, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "old.csv").write_text(OLD.replace("2026-01", "2025"), encoding="utf-8")
    run(
        *("--categories", day / "categories", "--ds", DS, "--old-taxonomy", tmp_path / "old.csv"),
        code=3,
    )
    assert "is of taxonomy 2026-01, and --old-taxonomy is 2025" in error_line(capsys)
    assert not (tmp_path / "mapped" / f"ds={DS}").exists()
