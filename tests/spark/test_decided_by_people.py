"""jobs.categorize_listings --labels: what people decided wins over the model."""

from pathlib import Path

import pytest

from seer_model.categorizer.bundle import Bundle
from tests.support.decisions import decision, write_decisions
from tests.support.manifest_rows import Categorize, DrawPhoto, ReadCategories, WriteManifest, row

pytestmark = pytest.mark.spark


def test_people_win(
    categorize: Categorize,
    write_manifest: WriteManifest,
    read_categories: ReadCategories,
    draw_photo: DrawPhoto,
    broken_photos: dict[str, bytes],
    bundle: Bundle,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ("changed", "withdrawn", "unsure", "of another tree", "untouched")
    rows = [row(name, image_bytes=draw_photo("warm/red", spread=0)) for name in names]
    broken = ("broken", "broken, given", "broken, withdrawn")
    rows += [row(name, image_bytes=broken_photos["empty_file"]) for name in broken]
    manifest = write_manifest(tmp_path / "manifest", rows)
    labels = write_decisions(
        tmp_path / "labels",
        decision("changed", category_id="cold/blue"),
        decision("withdrawn", "not_in_taxonomy"),
        decision("unsure", "unsure"),
        decision("of another tree", category_id="aa-1"),
        decision("broken, given", category_id="cold", source="rule", reason="recall 17"),
        decision("broken, withdrawn", "bad_photo"),
        decision("of another day", category_id="cold"),
    )
    flags = ("--labels", str(labels), "--embeddings", str(tmp_path / "store"))
    figures = categorize(manifest, tmp_path / "categories", *flags)
    published = {
        each["listing_id"]: each for each in read_categories(tmp_path / "categories").to_pylist()
    }
    shown = ("decision", "category_id", "review_reason", "reject_reason", "decided_by")
    found = {name: tuple(each[part] for part in shown) for name, each in published.items()}
    by_model = found["untouched"]
    assert by_model[-1] == "model"
    assert found == {
        "changed": ("assigned", "cold/blue", None, None, "review"),
        "withdrawn": ("needs_review", None, "no_category", None, "review"),
        "unsure": by_model,
        "of another tree": by_model,
        "untouched": by_model,
        "broken": ("rejected", None, None, "empty_file", "model"),
        "broken, given": ("assigned", "cold", None, None, "rule"),
        "broken, withdrawn": ("rejected", None, None, "empty_file", "model"),
    }
    changed, untouched = published["changed"], published["untouched"]
    assert tuple(changed["category_path"]) == bundle.tree.taxonomy["cold/blue"].path
    assert changed["score"] is None
    assert changed["candidates"] == untouched["candidates"]
    assert figures["decided_by"] == {"model": 5, "review": 2, "rule": 1}
    assert figures["review_reasons"]["no_category"] == 1
    assert figures["decisions_not_in_taxonomy"] == 1
    assert "lacks their category, such as 'aa-1' of listing 'of another tree'" in caplog.text

    # Without them the model decides again.
    figures = categorize(manifest, tmp_path / "categories", *flags[2:])
    assert figures["decided_by"] == {"model": len(rows)}
    again = read_categories(tmp_path / "categories").to_pylist()
    assert {each["listing_id"]: each for each in again}["changed"]["category_id"] == by_model[1]
