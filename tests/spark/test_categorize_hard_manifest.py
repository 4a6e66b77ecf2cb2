"""Odd ids, broken photos and listings of many: each comes out once, with what is to be said."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from schemas.categories import CATEGORIES, Decision
from seer_model.categorizer.bundle import Bundle
from tests.support.manifest_rows import (
    BY_RUN,
    DS,
    ODD_IDS,
    Categorize,
    DrawPhoto,
    ReadCategories,
    Rows,
    WriteManifest,
    row,
)

pytestmark = pytest.mark.spark


class Expected(NamedTuple):
    """What must come out for a listing; `rejects` is its `image_rejects`."""

    used: int
    rejects: dict[int, str]
    reason: str | None = None
    rejected: int | None = None


class HardRun(NamedTuple):
    manifest: Path
    output: Path
    report: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    expected: dict[str, Expected]


def hard_rows(
    draw: DrawPhoto, broken: dict[str, bytes], folder: Path
) -> tuple[Rows, dict[str, Expected]]:
    good = draw("warm/red", 1)
    plain, spaced = folder / "100%20.jpg", folder / "a b.jpg"
    for path in (plain, spaced):
        path.write_bytes(good)
    rows, expected = [], {}

    def add(listing: str, outcome: Expected, *photos: dict[str, Any]) -> None:
        rows.extend(photos)
        expected[listing] = outcome

    for reason, data in broken.items():
        outcome = Expected(0, {0: reason}, reason)
        add(f"bytes {reason}", outcome, row(f"bytes {reason}", image_bytes=data))
        path = folder / reason
        path.write_bytes(data)
        add(f"file {reason}", outcome, row(f"file {reason}", image_uri=str(path)))
    for name, reason, columns in [
        ("missing", "not_found", {"image_uri": str(folder / "missing.jpg")}),
        ("missing uri", "not_found", {"image_uri": (folder / "missing.jpg").as_uri()}),
        ("folder", "not_found", {"image_uri": str(folder)}),
        ("no name", "not_found", {"image_uri": ""}),
        ("scheme", "unsupported_scheme", {"image_uri": "gopher://127.0.0.1/a.jpg"}),
        ("loopback", "not_allowed", {"image_uri": "http://127.0.0.1:1/a.jpg"}),
        ("kernel", "not_allowed", {"image_uri": "/proc/self/environ"}),
        ("neither", "no_photo", {}),
        ("both", "ambiguous_source", {"image_uri": str(plain), "image_bytes": good}),
    ]:
        add(name, Expected(0, {0: reason}, reason), row(name, **columns))
    for name, uri in [
        ("path", str(plain)),
        ("uri", spaced.as_uri()),
        ("path with a space", str(spaced)),
    ]:
        add(name, Expected(1, {}), row(name, image_uri=uri))
    for number, listing in enumerate(ODD_IDS):
        add(listing, Expected(1, {}), row(listing, image_bytes=draw("cold/blue", number)))

    for name, colours in [
        ("leaf", ["cold/blue"]),
        ("parent", ["warm/red", "warm/yellow"]),
        ("review", ["warm/red", "cold/blue"]),
    ]:
        photos = [draw(colour, spread=0) for colour in colours]
        add(
            name,
            Expected(len(photos), {}),
            *(row(name, index, image_bytes=photo) for index, photo in enumerate(photos)),
        )

    cut, every = broken["truncated"], {9 - i: reason for i, reason in enumerate(broken)}
    many = [draw("cold/green", i) if i % 40 else cut for i in range(200)]
    for name, outcome, photos in [
        ("null index", Expected(1, {-1: "truncated"}), [(None, good), (None, cut)]),
        ("same index, good and bad", Expected(1, {0: "empty_file"}), [(0, good), (0, b"")]),
        ("same index, good twice", Expected(2, {}), [(0, good), (0, good)]),
        (
            "same index, bad twice",
            Expected(0, {0: "empty_file"}, "empty_file", rejected=2),
            [(0, cut), (0, b"")],
        ),
        (
            "every fault",
            Expected(0, every, every[min(every)]),
            [(index, broken[reason]) for index, reason in every.items()],
        ),
        (
            "mostly empty",
            Expected(0, dict.fromkeys((0, 7, 8), "empty_file") | {3: "truncated"}, "empty_file"),
            [(3, cut), (8, b""), (0, b""), (7, b"")],
        ),
        (
            "200 photos",
            Expected(195, dict.fromkeys(range(0, 200, 40), "truncated")),
            list(enumerate(many)),
        ),
    ]:
        add(name, outcome, *(row(name, index, image_bytes=data) for index, data in photos))

    rows.append(row(None, image_bytes=good))
    rows.append(row(None, None))
    return rows, expected


@pytest.fixture(scope="module")
def hard_run(
    categorize: Categorize,
    read_categories: ReadCategories,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    broken_photos: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> HardRun:
    folder = tmp_path_factory.mktemp("hard")
    rows, expected = hard_rows(draw_photo, broken_photos, folder)
    manifest = write_manifest(folder / "manifest", rows)
    report = categorize(manifest, folder / "categories")
    table = read_categories(folder / "categories")
    by_listing = {found["listing_id"]: found for found in table.to_pylist()}
    assert len(by_listing) == table.num_rows
    return HardRun(manifest, folder / "categories", report, by_listing, expected)


def test_every_listing_comes_out_once(hard_run: HardRun) -> None:
    assert hard_run.rows.keys() == hard_run.expected.keys()
    assert len(hard_run.expected) > 45


def test_photos_are_counted_and_reasons_given(hard_run: HardRun) -> None:
    found = {
        listing: Expected(
            scored["images_used"],
            dict(scored["image_rejects"] or {}),
            scored["reject_reason"],
            scored["images_rejected"],
        )
        for listing, scored in hard_run.rows.items()
    }
    assert found == {
        listing: outcome._replace(
            rejected=len(outcome.rejects) if outcome.rejected is None else outcome.rejected
        )
        for listing, outcome in hard_run.expected.items()
    }


def test_decisions_are_right(hard_run: HardRun) -> None:
    for listing, outcome in hard_run.expected.items():
        decision = hard_run.rows[listing]["decision"]
        assert (decision == "rejected") == (outcome.used == 0), listing
    decided = {
        listing: (scored["decision"], scored["category_id"], scored["category_path"])
        for listing, scored in hard_run.rows.items()
    }
    assert decided["leaf"] == ("assigned", "cold/blue", ["Cold", "Blue"])
    assert decided["parent"] == ("assigned", "warm", ["Warm"])
    assert decided["review"] == ("needs_review", None, None)
    assert decided["file truncated"] == ("rejected", None, None)
    assert decided["path"] == decided["uri"] == decided["path with a space"]


def test_candidates_are_the_best_first(hard_run: HardRun) -> None:
    for scored in hard_run.rows.values():
        scores = [candidate["score"] for candidate in scored["candidates"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == (0 if scored["decision"] == "rejected" else 4)


def test_every_row_says_what_made_it(hard_run: HardRun, bundle: Bundle) -> None:
    for scored in hard_run.rows.values():
        assert scored["model_name"] == "colours"
        assert scored["model_version"] == bundle.digest[:12]
        assert scored["bundle_digest"] == bundle.digest
        assert scored["taxonomy_version"] == "2026-01"
        assert scored["run_id"] == hard_run.report["run_id"]


def test_report_counts_what_was_published(hard_run: HardRun, runtime: str) -> None:
    report, rows = hard_run.report, hard_run.rows.values()
    counts = Counter(scored["decision"] for scored in rows)
    assert report["listings"] == len(hard_run.expected)
    assert {name: report[name] for name in Decision} == counts
    assert report["reject_reasons"] == Counter(
        scored["reject_reason"] for scored in rows if scored["reject_reason"]
    )
    assert report["photos_used"] == sum(scored["images_used"] for scored in rows)
    assert report["photos_rejected"] == sum(scored["images_rejected"] for scored in rows)
    assert report["photos"] == report["photos_used"] + report["photos_rejected"]
    assert report["rows_without_listing"] == 2
    # One row had nothing to read, and one had two sources.
    assert report["photos_embedded"] == report["photos"] - 2
    assert report["devices"] == {f"cpu ({runtime})": report["photos_embedded"]}
    assert report["published"] == str(hard_run.output / f"ds={DS}")


def test_spark_and_pyarrow_read_the_same_from_above(spark: SparkSession, hard_run: HardRun) -> None:
    by_spark = spark.read.parquet(str(hard_run.output))
    by_arrow = pq.read_table(hard_run.output)
    columns = {*CATEGORIES.names, "ds"}
    assert set(by_spark.columns) == set(by_arrow.column_names) == columns
    assert by_spark.count() == by_arrow.num_rows == len(hard_run.expected)


def test_running_again_gives_the_same_rows(
    hard_run: HardRun, categorize: Categorize, read_categories: ReadCategories
) -> None:
    before = read_categories(hard_run.output)
    report = categorize(hard_run.manifest, hard_run.output)
    after = read_categories(hard_run.output)
    assert after.drop_columns(BY_RUN).equals(before.drop_columns(BY_RUN))
    assert set(after["run_id"].to_pylist()) == {report["run_id"]} != {hard_run.report["run_id"]}
