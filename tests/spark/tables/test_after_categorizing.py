"""Duplicates, a screening, and another taxonomy: from table to table."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs import categorize_listings, find_duplicates, map_categories, screen_listings
from schemas.categories import check_categories
from tests.spark.tables.conftest import Lake
from tests.support.manifest_rows import DS, DrawPhoto, row
from tests.support.marketplace import COLOURS

pytestmark = [pytest.mark.spark, pytest.mark.lake]

OLD = "# version: 2026-01\ncategory_id,category_path\nwarm,Warm\ncold,Cold\n" + "".join(
    f"{colour},{colour.title().replace('/', ' > ')}\n" for colour in COLOURS
)
NEW = "category_id,category_path\nhot,Hot\nicy,Icy\n"
MAP = "from_id,to_id\nwarm,hot\ncold,icy\n"


def test_from_table_to_table(
    lake: Lake, draw_photo: DrawPhoto, bundle_folder: Path, tracking_uri: str, tmp_path: Path
) -> None:
    for name, text in (("old.csv", OLD), ("new.csv", NEW), ("map.csv", MAP)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    report = tmp_path / "report.json"

    def run(job: Callable[[Sequence[str]], int], *flags: object) -> dict[str, Any]:
        argv = [*flags, "--ds", DS, "--tracking-uri", tracking_uri, "--report", report]
        assert job([str(part) for part in argv]) == 0
        return json.loads(report.read_text(encoding="utf-8"))

    photos = {name: draw_photo(name, 5) for name in COLOURS}
    rows = [row(name, image_bytes=photos[name], category_id=name) for name in COLOURS]
    rows.append(row("a copy", image_bytes=photos[COLOURS[0]]))
    manifest = lake.write_manifest(rows)
    store = ["--embeddings", lake.flag("embeddings")]
    published = lake.flag("categories")
    run(
        categorize_listings.main,
        *("--manifest", manifest, "--model", bundle_folder, "--output", published, *store),
    )

    backbone = ["--backbone", bundle_folder / "backbone"]
    duplicates = ["--manifest", manifest, "--output", lake.flag("duplicates"), *backbone, *store]
    figures = run(find_duplicates.main, *duplicates)
    assert (figures["photos_embedded"], figures["groups"]) == (0, 1)
    found = lake.spark.table(f"{lake.namespace}.duplicates").collect()
    assert {each["listing_id"] for each in found} == {COLOURS[0], "a copy"}
    assert {str(each["ds"]) for each in found} == {DS}

    # The store was made before anything asked for signals: its table is given what it lacks.
    screen = ["--manifest", manifest, "--output", lake.flag("screening"), *backbone, *store]
    figures = run(screen_listings.main, *screen)
    assert (figures["photos_embedded"], figures["allow"]) == (len(rows), len(rows))
    assert run(screen_listings.main, *screen)["photos_embedded"] == 0
    screened = lake.spark.table(f"{lake.namespace}.screening").collect()
    assert {(each["listing_id"], each["action"]) for each in screened} == {
        *((name, "allow") for name in COLOURS),
        ("a copy", "allow"),
    }

    trees = ["--mapping", tmp_path / "map.csv", "--old-taxonomy", tmp_path / "old.csv"]
    trees += ["--taxonomy", tmp_path / "new.csv"]
    run(map_categories.main, *trees, "--categories", published, "--output", lake.flag("other"))
    mapped = lake.spark.table(f"{lake.namespace}.other").where(f"ds = '{DS}'").drop("ds").toArrow()
    check_categories(mapped, "mapped")
    before = {each["listing_id"]: each["category_id"] for each in lake.categories().to_pylist()}
    for each in mapped.to_pylist():
        top = (before[each["listing_id"]] or "").partition("/")[0]
        assert each["category_id"] == {"warm": "hot", "cold": "icy", "": None}[top]

    figures = run(map_categories.main, *trees, "--manifest", manifest, "--output", lake.flag("new"))
    assert (figures["by_ancestor"], figures["without_category"], figures["written"]) == (4, 1, 5)
    labels = lake.spark.table(f"{lake.namespace}.new").select("listing_id", "category_id").collect()
    assert {tuple(each) for each in labels} == {
        *((name, {"warm": "hot", "cold": "icy"}[name.partition("/")[0]]) for name in COLOURS),
        ("a copy", None),
    }
