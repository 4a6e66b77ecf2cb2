import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession

from jobs import categorize_listings
from jobs.publish import hold_partition
from schemas.categories import CATEGORIES, Decision
from schemas.embeddings import check_embeddings
from schemas.rejects import RejectReason
from seer_model.bundle import Bundle

pytestmark = pytest.mark.spark

DS = "2026-11-25"
BY_RUN = ["run_id", "categorized_at"]

Categorize = Callable[..., dict[str, Any]]
DrawPhoto = Callable[..., bytes]
ReadCategories = Callable[[Path], pa.Table]
Rows = list[dict[str, Any]]
WriteManifest = Callable[..., Path]


def row(listing: str | None, index: int | None = 0, **columns: object) -> dict[str, Any]:
    return {"listing_id": listing, "image_index": index, **columns}


def keyed(listing: str, photo: bytes, index: int = 0, **columns: object) -> dict[str, Any]:
    key = sha256(photo).hexdigest()
    return row(listing, index, image_bytes=photo, image_key=key, **columns)


# ---------------------------------------------------------------- a hard manifest


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


ODD_IDS = [
    "",
    " ",
    "a",
    "a ",
    "A",
    unicodedata.normalize("NFC", "crème brûlée"),
    unicodedata.normalize("NFD", "crème brûlée"),
    "沙发🛋️",
    "it's",
    'a "quoted" one',
    "back\\slash, comma; and %20",
    "two\nlines\tand a tab",
    "../../etc/passwd",
    "null",
    "nul\0byte",
]


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
        ("refused", "read_failed", {"image_uri": "http://127.0.0.1:1/a.jpg"}),
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


def test_report_counts_what_was_published(hard_run: HardRun) -> None:
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
    assert report["devices"] == {"cpu": report["photos_embedded"]}
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


# ---------------------------------------------------------------- what stops it


@pytest.fixture(scope="module")
def published(
    categorize: Categorize,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """A manifest whose categories were published: what a run that fails must leave alone."""
    folder = tmp_path_factory.mktemp("published")
    rows = [row(f"old {i}", image_bytes=draw_photo("warm/red", i)) for i in range(3)]
    manifest = write_manifest(folder / "manifest", rows)
    categorize(manifest, folder / "categories")
    return manifest, folder / "categories"


@pytest.fixture
def untouched(published: tuple[Path, Path], read_categories: ReadCategories) -> Iterator[None]:
    """The published rows are there after the test as they were before, and nothing else is."""
    _, output = published
    before = read_categories(output)
    yield
    assert read_categories(output).equals(before)
    (run_id,) = set(before["run_id"].to_pylist())
    assert [path.name for path in (output / "_runs" / f"ds={DS}").iterdir()] == [run_id]


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    return line


@pytest.mark.usefixtures("untouched")
def test_model_that_is_not_there_is_2(
    published: tuple[Path, Path],
    categorize: Categorize,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    categorize(*published, "--model", str(tmp_path / "nowhere"), code=2)
    assert "nowhere: no such folder" in error_line(capsys)


@pytest.mark.parametrize("output", ["s3://bucket/categories", "hdfs://host/categories"])
def test_remote_output_is_2(
    published: tuple[Path, Path],
    categorize: Categorize,
    output: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    categorize(published[0], output, code=2)
    assert f"--output {output}" in error_line(capsys)


@pytest.mark.usefixtures("untouched")
def test_missing_column_is_3(
    published: tuple[Path, Path],
    categorize: Categorize,
    write_manifest: WriteManifest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    schema = pa.schema([("listing_id", pa.string()), ("image_uri", pa.string())])
    manifest = write_manifest(tmp_path / "manifest", [{"listing_id": "a"}], schema=schema)
    categorize(manifest, published[1], code=3)
    assert "image_index" in error_line(capsys)


@pytest.mark.usefixtures("untouched")
def test_missing_partition_is_3(
    published: tuple[Path, Path], categorize: Categorize, capsys: pytest.CaptureFixture[str]
) -> None:
    categorize(*published, "--ds", "2026-11-24", code=3)
    assert "ds=2026-11-24" in error_line(capsys)
    assert not (published[1] / "ds=2026-11-24").exists()


@pytest.mark.usefixtures("untouched")
def test_partition_that_another_run_holds_is_5(
    published: tuple[Path, Path],
    categorize: Categorize,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest, output = published
    with hold_partition(output, DS, "another-run"):
        categorize(manifest, output, code=5)
    assert "another-run" in error_line(capsys)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "spoil",
    [lambda rows: rows.where("listing_id != 'old 1'"), lambda rows: rows.union(rows)],
    ids=["lost", "repeated"],
)
def test_listings_lost_or_repeated_are_3(
    published: tuple[Path, Path],
    categorize: Categorize,
    spoil: Callable[[DataFrame], DataFrame],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    score = categorize_listings.score_photos
    monkeypatch.setattr(categorize_listings, "score_photos", lambda *args: spoil(score(*args)))
    categorize(*published, code=3)
    assert "nothing was published" in error_line(capsys)


@pytest.mark.usefixtures("untouched")
def test_damage_found_on_the_way_is_1(
    published: tuple[Path, Path],
    categorize: Categorize,
    write_manifest: WriteManifest,
    tmp_path: Path,
) -> None:
    manifest = write_manifest(tmp_path / "manifest", [row("a", image_bytes=b"photo")])
    file = manifest / f"ds={DS}" / "part-0.parquet"
    data = file.read_bytes()
    file.write_bytes(data[:4] + bytes(40) + data[44:])
    categorize(manifest, published[1], code=1)


# ---------------------------------------------------------------- nothing to do


@pytest.mark.parametrize("rows", [[], [row(None, image_bytes=b"")]], ids=["no row", "no listing"])
def test_partition_without_listings_is_published_empty(
    spark: SparkSession,
    categorize: Categorize,
    read_categories: ReadCategories,
    write_manifest: WriteManifest,
    tmp_path: Path,
    rows: Rows,
) -> None:
    manifest, output = write_manifest(tmp_path / "manifest", rows), tmp_path / "categories"
    report = categorize(manifest, output, "--embeddings", str(tmp_path / "store"))
    assert (report["listings"], report["photos"], report["photos_embedded"]) == (0, 0, 0)
    assert report["rows_without_listing"] == len(rows)
    assert read_categories(output).num_rows == 0
    assert spark.read.parquet(str(output)).count() == 0


# ---------------------------------------------------------------- the store


@pytest.mark.slow
def test_store_spares_reading_and_changes_nothing(
    categorize: Categorize,
    read_categories: ReadCategories,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    broken_photos: dict[str, bytes],
    bundle: Bundle,
    tmp_path: Path,
) -> None:
    manifest, output, store = (tmp_path / name for name in ("manifest", "categories", "store"))
    red, blue = draw_photo("warm/red", 1), draw_photo("cold/blue", 1)
    late = tmp_path / "late.jpg"

    def run(rows: Rows, *flags: str) -> tuple[int, pa.Table]:
        report = categorize(write_manifest(manifest, rows), output, *flags)
        return report["photos_embedded"], read_categories(output).drop_columns(BY_RUN)

    def run_with_store(rows: Rows) -> tuple[int, pa.Table]:
        return run(rows, "--embeddings", str(store))

    lasting = [
        keyed("red", red),
        keyed("red again", red),
        keyed("two", red),
        keyed("two", blue, 1),
        row("without a key", image_bytes=blue),
        *(keyed(reason, data) for reason, data in broken_photos.items()),
        keyed("both", red, image_uri=str(late)),
        row("neither", image_key=sha256(red).hexdigest()),
    ]
    readable = len(lasting) - 2
    embedded, plain = run(lasting)
    assert embedded == readable
    # Spark clears `_temporary` in a folder it writes to, with what other runs have there.
    pending = store / f"backbone={bundle.backbone.digest}" / "_temporary" / "0"
    pending.mkdir(parents=True)
    assert run_with_store(lasting) == (readable, plain)
    assert run_with_store(lasting) == (0, plain)

    # A photo that changed, one that is not there yet, and one that may change unseen.
    unseen = tmp_path / "unseen.jpg"
    unseen.write_bytes(blue)
    changed = [
        keyed("red", draw_photo("warm/red", 2)),
        *lasting[1:],
        row("late", image_uri=str(late), image_key="late"),
        row("unseen", image_uri=str(unseen)),
    ]
    embedded, without_late = run_with_store(changed)
    assert embedded == 3
    rejected = {r["listing_id"]: r["reject_reason"] for r in without_late.to_pylist()}
    assert rejected["late"] == "not_found"

    late.write_bytes(red)
    embedded, with_late = run_with_store(changed)
    assert embedded == 2
    assert run(changed) == (len(changed) - 2, with_late)
    found = {r["listing_id"]: r for r in with_late.to_pylist()}
    assert found["late"]["images_used"] == 1
    assert found["late"]["score"] == found["red again"]["score"] != found["red"]["score"]
    assert [found[name]["reject_reason"] for name in ("both", "neither")] == [
        "ambiguous_source",
        "no_photo",
    ]

    assert pending.is_dir()
    table = pq.read_table(store)
    check_embeddings(table, bundle.backbone.width, "store")
    assert set(table["backbone_digest"].to_pylist()) == {bundle.backbone.digest}
    reasons = {r["image_key"]: r["reject_reason"] for r in table.to_pylist()}
    assert reasons.pop("late") is None
    photos = [red, blue, draw_photo("warm/red", 2)]
    assert reasons == {
        **{sha256(photo).hexdigest(): None for photo in photos},
        **{sha256(data).hexdigest(): reason for reason, data in broken_photos.items()},
    }
    assert {name for name in reasons.values() if name} <= {r for r in RejectReason if r.permanent}


# ---------------------------------------------------------------- any manifest


@pytest.mark.slow
def test_any_manifest_gives_its_distinct_listings(
    categorize: Categorize,
    read_categories: ReadCategories,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    broken_photos: dict[str, bytes],
    tmp_path: Path,
) -> None:
    photos = [draw_photo("warm/red", 1), draw_photo("cold/blue", 2), *broken_photos.values()]
    rows = st.builds(
        row,
        st.none() | st.sampled_from(ODD_IDS) | st.text(max_size=4),
        st.none() | st.integers(-1, 3),
        image_bytes=st.none() | st.sampled_from(photos),
        image_uri=st.none() | st.sampled_from(["", str(tmp_path), "gopher://a/b", "/nowhere"]),
        image_key=st.none() | st.just(""),
        category_id=st.none() | st.text(max_size=2),
    )

    @given(st.lists(rows, max_size=12))
    @settings(
        max_examples=8,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    def check(drawn: Rows) -> None:
        listings = {r["listing_id"] for r in drawn} - {None}
        report = categorize(write_manifest(tmp_path / "manifest", drawn), tmp_path / "categories")
        table = read_categories(tmp_path / "categories")
        assert sorted(table["listing_id"].to_pylist()) == sorted(listings)
        assert set(table["decision"].to_pylist()) <= set(Decision)
        assert sum(report[name] for name in Decision) == len(listings) == report["listings"]

    check()
