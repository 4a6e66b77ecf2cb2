"""The daily job with tables of Iceberg and of Delta: the same rows as with folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import check_categories
from tests.spark.tables.conftest import Lake, iceberg_alone
from tests.support.embedding_rows import error_line
from tests.support.manifest_rows import (
    BY_RUN,
    DS,
    Categorize,
    DrawPhoto,
    ReadCategories,
    Rows,
    WriteManifest,
    row,
)

pytestmark = [pytest.mark.spark, pytest.mark.lake]

BEFORE = "2026-11-24"
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def rows(draw_photo: DrawPhoto, broken_photos: dict[str, bytes]) -> Rows:
    photos = [draw_photo(name, i) for name in ("warm/red", "cold/blue") for i in range(4)]
    good = [row(f"listing {i // 2}", i % 2, image_bytes=photo) for i, photo in enumerate(photos)]
    return [*good, *(row(name, image_bytes=photo) for name, photo in broken_photos.items())]


@pytest.fixture
def run(lake: Lake, categorize: Categorize, tmp_path: Path) -> Run:
    """Runs the job from table to table."""

    def run(manifest: str, *flags: str, code: int = 0) -> dict[str, Any]:
        tables = ["--manifest", manifest, "--output", lake.flag("categories")]
        return categorize(
            tmp_path / "unused",
            lake.flag("categories"),
            *(*tables, "--embeddings", lake.flag("embeddings"), "--scratch", str(tmp_path)),
            *flags,
            code=code,
        )

    return run


@pytest.mark.slow
def test_the_rows_are_those_of_a_folder(
    lake: Lake,
    run: Run,
    rows: Rows,
    write_manifest: WriteManifest,
    categorize: Categorize,
    read_categories: ReadCategories,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "folder"
    expected = categorize(write_manifest(tmp_path / "photos", rows), folder)
    lake.write_manifest(rows[:8], BEFORE)
    manifest = lake.write_manifest(rows)

    first = run(manifest, "--ds", BEFORE)
    assert first["drift"] == {"compared_with": None}
    second = run(manifest)
    counts = ("listings", "assigned", "needs_review", "rejected", "photos", "reject_reasons")
    assert {name: second[name] for name in counts} == {name: expected[name] for name in counts}
    assert second["photos_embedded"] == len(rows) - 8
    assert second["drift"]["compared_with"] == BEFORE
    assert (
        lake.categories().drop_columns(BY_RUN).equals(read_categories(folder).drop_columns(BY_RUN))
    )

    again = run(manifest)
    # Whether bytes are too large, or no image, depends on the version: they are read again.
    assert (again["photos_embedded"], second["photos_embedded"]) == (2, len(rows) - 8)
    for day, report in ((BEFORE, first), (DS, again)):
        assert set(lake.categories(day)["run_id"].to_pylist()) == {report["run_id"]}
    assert not [*tmp_path.glob("_scratch-*"), *tmp_path.rglob("run=*")]
    flags = ["--manifest", manifest, "--ds", DS, "--output", lake.flag("categories")]
    assert check_categories.main(flags) == 0


def test_the_history_names_the_runs_and_their_models(lake: Lake, run: Run, rows: Rows) -> None:
    report = run(lake.write_manifest(rows[:2]))
    history = {
        "iceberg": "SELECT snapshot_id, to_json(summary) FROM {categories}.snapshots",
        "delta": "DESCRIBE HISTORY {categories}",
    }[lake.using]
    (version, said), *_ = [
        (entry[0], str(entry)) for entry in lake.sql(history) if report["run_id"] in str(entry)
    ]
    assert report["bundle_digest"] in said
    assert report["model"] in said
    assert report["published"] == f"{lake.flag('categories')} version {version}"


@iceberg_alone
def test_the_table_is_documented_and_partitioned(lake: Lake, run: Run, rows: Rows) -> None:
    run(lake.write_manifest(rows[:2]))
    described = lake.sql("DESCRIBE TABLE EXTENDED {categories}")
    comments = {name: comment for name, _, comment in described}
    assert comments["listing_id"] == "the listing, once a day"
    names = [name for name, *_ in described]
    assert names[names.index("# Partition Information") + 2] == "ds"


def test_columns_are_added_and_others_left_alone(lake: Lake, run: Run, rows: Rows) -> None:
    lake.sql(
        "CREATE TABLE {categories} (ds date, listing_id string not null, approved_by string) "
        f"USING {lake.using} PARTITIONED BY (ds)"
    )
    lake.sql(f"INSERT INTO {{categories}} VALUES (date'{BEFORE}', 'old', 'somebody')")
    report = run(lake.write_manifest(rows))
    assert report["listings"] == len(lake.categories())
    found = lake.sql("SELECT approved_by, decision FROM {categories} WHERE listing_id = 'old'")
    assert found == [("somebody", None)]


@pytest.mark.parametrize(
    ("columns", "partitioning", "complaint"),
    [
        ("score string", "ds", "column score is string, expected float"),
        ("extra int not null", "ds", "column extra may not be null, but is not written"),
        ("score float", "listing_id", "is partitioned by listing_id, expected ds"),
    ],
)
def test_a_table_of_another_shape_is_refused(
    lake: Lake,
    run: Run,
    rows: Rows,
    capsys: pytest.CaptureFixture[str],
    columns: str,
    partitioning: str,
    complaint: str,
) -> None:
    lake.sql(
        f"CREATE TABLE {{categories}} (ds date not null, listing_id string not null, {columns}) "
        f"USING {lake.using} PARTITIONED BY ({partitioning})"
    )
    run(lake.write_manifest(rows[:2]), code=3)
    assert f"{lake.flag('categories')}: {complaint}" in error_line(capsys)


@iceberg_alone
@pytest.mark.parametrize(
    ("output", "code", "complaint"),
    [
        ("table:nowhere.n.categories", 2, "Spark cannot open it"),
        ("table:lake.categories", 2, "is not table:CATALOG.NAMESPACE.NAME"),
        ("table:spark_catalog.default.plain", 2, "format parquet has no atomic commits"),
    ],
)
def test_what_is_no_table_to_publish_to(
    lake: Lake,
    run: Run,
    rows: Rows,
    capsys: pytest.CaptureFixture[str],
    output: str,
    code: int,
    complaint: str,
    tmp_path: Path,
) -> None:
    place = (tmp_path / "plain").as_uri()
    lake.sql(f"CREATE TABLE spark_catalog.default.plain (a int) USING parquet LOCATION '{place}'")
    try:
        run(lake.write_manifest(rows[:2]), "--output", output, code=code)
    finally:
        lake.sql("DROP TABLE spark_catalog.default.plain")
    assert complaint in error_line(capsys)


@iceberg_alone
def test_scratch_space_that_spark_cannot_reach_is_2(
    lake: Lake, run: Run, rows: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    run(lake.write_manifest(rows[:2]), "--scratch", "nowhere://host/scratch", code=2)
    assert "nowhere://host/scratch: Spark cannot open it: " in error_line(capsys)


@iceberg_alone
@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (None, "no such manifest"),
        ("(listing_id string, image_index int, image_uri string)", "column ds is missing"),
        ("(ds date, image_index int, image_uri string)", "column listing_id is missing"),
        ("(ds date, listing_id string, image_index string, image_uri string)", "image_index"),
        ("(ds date, listing_id string, image_index int, image_uri string)", "has no row there"),
    ],
)
def test_a_manifest_that_breaks_its_contract_is_refused(
    lake: Lake, run: Run, capsys: pytest.CaptureFixture[str], make: str | None, complaint: str
) -> None:
    if make:
        lake.sql(f"CREATE TABLE {{manifest}} {make} USING {lake.using}")
    run(lake.flag("manifest"), code=3)
    assert complaint in error_line(capsys)


def test_days_may_be_strings_and_a_manifest_a_view(lake: Lake, run: Run, rows: Rows) -> None:
    lake.write_manifest(rows[:2], kind="string")
    if lake.using == "delta":
        lake.sql("CREATE VIEW {other} AS SELECT * FROM {manifest}")
        try:
            assert run(lake.flag("other"))["photos"] == 2
        finally:
            lake.sql("DROP VIEW {other}")
    else:
        assert run(lake.flag("manifest"))["photos"] == 2
