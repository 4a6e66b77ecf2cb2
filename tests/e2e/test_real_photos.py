"""From a folder of real photos to published categories, job by job."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest

from jobs import build_manifest, categorize_listings, train_head
from schemas.categories import Decision, check_categories
from schemas.taxonomy_readers import read_taxonomy
from tests.support.paths import DATA
from tests.support.tracking_database import new_database

SHOPIFY = DATA / "taxonomy" / "shopify" / "dist_en_categories.txt"

pytestmark = [
    pytest.mark.spark,
    pytest.mark.slow,
    pytest.mark.photos,
    pytest.mark.usefixtures("spark"),
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real photos at {DATA}"),
]

CATEGORIES = 5
LISTINGS = {"train": 9, "val": 2}
"""Of each category, in the splits to train and calibrate on."""
NEW = 5
"""Of each category, to be categorized."""


class Source(NamedTuple):
    """A folder of photos, and the splits whose listings are taken for new ones."""

    name: str
    new: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return DATA / self.name


class Slice(NamedTuple):
    """A few listings of a source."""

    csv: Path
    photos: Counter[str]
    known: set[str]
    new: set[str]


GROCERY = Source("grocery", ("test",))
CLOTHING = Source("clothing", ("extra_train", "unlabeled"))


def cut(source: Source, path: Path) -> Slice:
    """Take a few listings of the most frequent categories, and some without one where there are."""
    with (source.folder / "listings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    frequent = Counter(row["category_id"] for row in rows if row["split"] == "train")
    kept = {name for name, _ in frequent.most_common(CATEGORIES)} | {""}
    limits = LISTINGS | dict.fromkeys(source.new, NEW)
    chosen: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for row in rows:
        group = chosen[row["category_id"], row["split"]]
        if row["category_id"] in kept and len(group) < limits.get(row["split"], 0):
            group[row["listing_id"]] = None
    known = {x for (_, split), group in chosen.items() if split in LISTINGS for x in group}
    new = {x for (_, split), group in chosen.items() if split in source.new for x in group}
    taken = [row for row in rows if row["listing_id"] in known | new]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(taken)
    return Slice(path, Counter(row["listing_id"] for row in taken), known, new)


@pytest.mark.parametrize(
    ("source", "taxonomy", "flags"),
    [
        (GROCERY, GROCERY.folder / "taxonomy.csv", []),
        (CLOTHING, CLOTHING.folder / "taxonomy.csv", ["--embed-bytes"]),
        (
            GROCERY,
            SHOPIFY,
            ["--label-map", str(GROCERY.folder / "taxonomy.csv"), "--label-column", "shopify_id"],
        ),
    ],
    ids=["grocery", "clothing", "grocery in Shopify's taxonomy"],
)
def test_photos_become_categories(
    source: Source, taxonomy: Path, flags: Sequence[str], tmp_path: Path
) -> None:
    listings = cut(source, tmp_path / "listings.csv")
    assert 60 <= len(listings.photos) <= 100
    manifest, bundle, output = (tmp_path / name for name in ("manifest", "bundle", "categories"))
    tracking = ["--tracking-uri", new_database(tmp_path)]

    def run(main: Callable[[list[str]], int], *arguments: object) -> dict[str, object]:
        report = tmp_path / "report.json"
        assert main([*map(str, arguments), "--report", str(report), *tracking]) == 0
        figures: dict[str, object] = json.loads(report.read_text(encoding="utf-8"))
        return figures

    def build(ds: str, splits: Sequence[str]) -> dict[str, object]:
        wanted = [part for split in splits for part in ("--split", split)]
        place = ["--images", source.folder, "--listings", listings.csv, "--output", manifest]
        return run(build_manifest.main, *place, "--ds", ds, *wanted, *flags)

    assert build("2026-11-24", list(LISTINGS))["listings"] == len(listings.known)
    built = build("2026-11-25", source.new)
    assert built["listings"] == len(listings.new)
    assert built["photos_missing"] == 0

    trained = run(
        train_head.main,
        *("--manifest", manifest, "--ds", "2026-11-24", "--backbone", "timm:regnety_002"),
        # So few listings could not show a high precision, and nothing would be assigned.
        *("--taxonomy", taxonomy, "--output", bundle, "--target-precision", 0.3),
    )
    assert trained["photos_embedded"] == sum(listings.photos[x] for x in listings.known)
    assert trained["model"] == str(bundle)

    report = run(
        categorize_listings.main,
        *("--manifest", manifest, "--ds", "2026-11-25", "--model", bundle, "--output", output),
    )
    table = pq.read_table(output / "ds=2026-11-25")
    check_categories(table, str(output))
    assert sorted(table["listing_id"].to_pylist()) == sorted(listings.new)
    assert sum(int(str(report[name])) for name in Decision) == len(listings.new)
    assert int(str(report["assigned"])) > 0
    assert set(table["images_rejected"].to_pylist()) == {0}

    tree = read_taxonomy(taxonomy)
    classes = set()
    for row in table.to_pylist():
        assert row["images_used"] == listings.photos[row["listing_id"]]
        assert row["taxonomy_version"] == tree.version
        classes |= {candidate["category_id"] for candidate in row["candidates"]}
        if row["decision"] == "assigned":
            assert row["category_path"] == list(tree[row["category_id"]].path)
    assert len(classes) == trained["classes"]
    assert all(name in tree for name in classes)
