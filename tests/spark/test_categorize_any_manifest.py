"""Any manifest gives a partition of its distinct listings; one without any is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.categories import Decision
from seer_model.categorizer.bundle import Bundle, save_bundle
from tests.support.manifest_rows import (
    ODD_IDS,
    Categorize,
    DrawPhoto,
    ReadCategories,
    Rows,
    WriteManifest,
    row,
)

pytestmark = pytest.mark.spark


@pytest.mark.parametrize("rows", [[], [row(None, image_bytes=b"")]], ids=["no row", "no listing"])
def test_partition_without_listings_is_not_published(
    categorize: Categorize,
    write_manifest: WriteManifest,
    tmp_path: Path,
    rows: Rows,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest, output = write_manifest(tmp_path / "manifest", rows), tmp_path / "categories"
    categorize(manifest, output, code=3)
    assert "the manifest has no row" in capsys.readouterr().err
    assert not list(output.glob("ds=*"))


def test_a_model_that_can_assign_nothing_is_said(
    categorize: Categorize,
    write_manifest: WriteManifest,
    bundle: Bundle,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calibration = replace(bundle.calibration, thresholds=(None, None))
    save_bundle(replace(bundle, calibration=calibration), tmp_path / "cautious")
    manifest = write_manifest(tmp_path / "manifest", [row("a", image_bytes=b"")])
    categorize(manifest, tmp_path / "categories", "--model", str(tmp_path / "cautious"))
    assert "cautious can assign nothing" in caplog.text


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

    # Few long ones, as a job takes seconds however little it is given.
    @given(st.lists(rows, min_size=16, max_size=48))
    @settings(
        max_examples=3,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )
    def check(drawn: Rows) -> None:
        listings = {r["listing_id"] for r in drawn} - {None}
        manifest, output = write_manifest(tmp_path / "manifest", drawn), tmp_path / "categories"
        report = categorize(manifest, output, code=0 if listings else 3)
        if not listings:
            return
        table = read_categories(output)
        assert sorted(table["listing_id"].to_pylist()) == sorted(listings)
        assert set(table["decision"].to_pylist()) <= set(Decision)
        assert sum(report[name] for name in Decision) == len(listings) == report["listings"]

    check()
