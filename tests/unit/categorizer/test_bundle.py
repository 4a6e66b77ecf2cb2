"""The model bundle: the round trip, what changes the digest, and refusals."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file, save_file

from schemas.errors import BundleError
from schemas.taxonomy import Category, Taxonomy
from seer_model.categorizer.bundle import FORMAT, Bundle, load_bundle, save_bundle
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.scoring import LISTINGS, score_listings
from seer_model.categorizer.thresholds import Calibration
from seer_model.files import digest_file
from seer_model.training.fit import FittedBundle
from tests.support.refusals import FILES

EditJson = Callable[..., None]
Damage = Callable[[Path, EditJson], object]

FAMILIARITY = "familiarity.safetensors"


@pytest.fixture(scope="module")
def bundle(saved_bundle: Path) -> Bundle:
    return load_bundle(saved_bundle)


def seal(folder: Path, edit_json: EditJson) -> None:
    """Make the digests of `bundle.json` those of the files."""
    files = {name: digest_file(folder / name) for name in FILES}
    edit_json(folder / "bundle.json", lambda record: record.update(files=files))


def listings(width: int) -> pa.RecordBatch:
    rng = np.random.default_rng(0)
    vectors = [rng.standard_normal(width).astype("<f2").tobytes() for _ in range(30)]
    photos = [{"image_index": 0, "vector": vector, "reject_reason": None} for vector in vectors]
    return pa.RecordBatch.from_pylist(
        [{"listing_id": f"L{i}", "photos": [photo]} for i, photo in enumerate(photos)],
        schema=LISTINGS,
    )


# Round trip


def test_round_trip_scores_the_same(fitted: FittedBundle, bundle: Bundle) -> None:
    batch = listings(bundle.backbone.width)
    scores = score_listings(fitted.bundle, batch)
    assert len(set(scores.column("score").to_pylist())) > 20
    assert score_listings(bundle, batch).equals(scores)


def test_round_trip_keeps_everything(fitted: FittedBundle, bundle: Bundle) -> None:
    original = fitted.bundle
    assert bundle.calibration == original.calibration
    assert bundle.training == original.training
    assert bundle.tree.classes == original.tree.classes
    assert bundle.tree.taxonomy.to_table().equals(original.tree.taxonomy.to_table())
    assert bundle.tree.taxonomy.version == original.tree.taxonomy.version
    assert bundle.backbone.digest == original.backbone.digest
    assert bundle.head.weight.tobytes() == original.head.weight.tobytes()
    assert bundle.head.bias.tobytes() == original.head.bias.tobytes()


def test_saving_again_gives_the_same_digest(
    fitted: FittedBundle, bundle: Bundle, tmp_path: Path
) -> None:
    again = save_bundle(fitted.bundle, tmp_path / "again")
    assert again.digest == bundle.digest
    assert save_bundle(again, tmp_path / "third").digest == bundle.digest
    assert save_bundle(again, tmp_path / "again").digest == bundle.digest
    assert len(bundle.digest) == 64


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda b: replace(b, training={"manifest": "other"}), id="training"),
        pytest.param(
            lambda b: replace(b, calibration=replace(b.calibration, temperature=2.0)),
            id="temperature",
        ),
        pytest.param(
            lambda b: replace(b, calibration=replace(b.calibration, thresholds=(None,) * 3)),
            id="thresholds",
        ),
        pytest.param(
            lambda b: replace(b, head=replace(b.head, bias=b.head.bias + np.float32(1e-3))),
            id="head",
        ),
        pytest.param(lambda b: replace(b, backbone=replace(b.backbone, licence="mit")), id="trunk"),
        pytest.param(
            lambda b: replace(b, tree=ClassTree(Taxonomy(b.tree.taxonomy, "2"), b.tree.classes)),
            id="taxonomy",
        ),
    ],
)
def test_any_content_changes_the_digest(
    bundle: Bundle, tmp_path: Path, change: Callable[[Bundle], Bundle]
) -> None:
    assert save_bundle(change(bundle), tmp_path / "changed").digest != bundle.digest


def test_loading_never_unpickles(saved_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **options: object) -> None:
        raise AssertionError("unpickled")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (np, "load")):
        monkeypatch.setattr(module, name, forbidden)
    monkeypatch.setattr(pickle, "Unpickler", forbidden)
    load_bundle(saved_bundle)


# The format


def test_the_record_is_written_as_ever(fitted: FittedBundle, tmp_path: Path) -> None:
    """Keys, their order and the form of numbers are those of the format."""
    calibration = Calibration(1.25, (None, 0.1 + 0.2, 1.0), 0.8)
    training = {"seed": 0, "val": {"top1": 64.0, "of": None}, "note": "é"}
    bundle = replace(fitted.bundle, calibration=calibration, training=training)
    save_bundle(bundle, tmp_path)
    files = {name: digest_file(tmp_path / name) for name in FILES}
    digests = ",\n".join(f'    "{name}": "{digest}"' for name, digest in files.items())
    assert (
        (tmp_path / "bundle.json").read_text(encoding="utf-8")
        == f"""{{
  "format": "{FORMAT}",
  "licence": "apache-2.0",
  "taxonomy_version": "2026-01",
  "taxonomy_digest": "{bundle.tree.taxonomy.digest}",
  "classes": [
    "a-1-1",
    "a-1-2",
    "a-2-1",
    "f-1-1",
    "f-1-2",
    "t-1"
  ],
  "calibration": {{
    "temperature": 1.25,
    "thresholds": [
      null,
      0.30000000000000004,
      1.0
    ],
    "target_precision": 0.8
  }},
  "training": {{
    "seed": 0,
    "val": {{
      "top1": 64.0,
      "of": null
    }},
    "note": "é"
  }},
  "files": {{
{digests}
  }}
}}
"""
    )


def test_a_bundle_without_familiarity_loads_as_before(
    undecided_bundle: Bundle, tmp_path: Path, edit_json: EditJson
) -> None:
    """Such as one of format 1.0."""
    older = replace(undecided_bundle, familiarity=None)
    save_bundle(older, tmp_path)
    edit_json(tmp_path / "bundle.json", lambda record: record.update(format="1.0"))
    loaded = load_bundle(tmp_path)
    assert loaded.familiarity is None
    batch = listings(older.backbone.width)
    assert score_listings(loaded, batch).equals(score_listings(older, batch))
    assert "unfamiliar" not in score_listings(loaded, batch).column("review_reason").to_pylist()


def test_familiarity_round_trip(undecided_bundle: Bundle, tmp_path: Path) -> None:
    loaded = save_bundle(undecided_bundle, tmp_path)
    batch = listings(loaded.backbone.width)
    scores = score_listings(undecided_bundle, batch)
    assert "unfamiliar" in scores.column("review_reason").to_pylist()
    assert score_listings(loaded, batch).equals(scores)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("limits"), "tensors are"),
        (lambda t: t.update(limits=t["limits"][:-1].copy()), "tensors are"),
        (lambda t: t.update(axes=t["axes"][:, 1:].copy()), "tensors are"),
        (lambda t: t["scale"].__setitem__(0, 0), "scale is not positive"),
        (lambda t: t["mean"].__setitem__(0, np.nan), "not finite"),
    ],
)
def test_damaged_familiarity_is_refused(
    undecided_bundle: Bundle,
    tmp_path: Path,
    edit_json: EditJson,
    edit: Callable[[dict[str, Any]], object],
    message: str,
) -> None:
    save_bundle(undecided_bundle, tmp_path)
    path = tmp_path / FAMILIARITY
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    digest = digest_file(path)
    edit_json(tmp_path / "bundle.json", lambda r: r["files"].update({FAMILIARITY: digest}))
    with pytest.raises(BundleError, match=f"{FAMILIARITY}: .*{message}"):
        load_bundle(tmp_path)


def test_familiarity_that_the_record_does_not_name_is_refused(
    undecided_bundle: Bundle, tmp_path: Path, edit_json: EditJson
) -> None:
    """Else a bundle could lose it, and with it the promise, unnoticed."""
    save_bundle(undecided_bundle, tmp_path)
    edit_json(tmp_path / "bundle.json", lambda record: record["files"].pop(FAMILIARITY))
    with pytest.raises(BundleError, match=f"{FAMILIARITY}: is not among the files"):
        load_bundle(tmp_path)


# Refusals


def test_a_missing_file_is_named(folder: Path) -> None:
    for name in [*FILES, "bundle.json"]:
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(BundleError, match=f"{name}: No such file"):
            load_bundle(folder)
        (folder / name).write_bytes(kept)
    load_bundle(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_a_flipped_bit_is_found(folder: Path, name: str, place: float) -> None:
    data = bytearray((folder / name).read_bytes())
    data[int(place * len(data)) if place > 0 else int(place)] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name}: its digest is not the one"):
        load_bundle(folder)


def record(**changes: Any) -> Damage:
    return lambda folder, edit_json: edit_json(
        folder / "bundle.json", lambda found: found.update(changes)
    )


def change(edit: Callable[[dict[str, Any]], object]) -> Damage:
    return lambda folder, edit_json: edit_json(folder / "bundle.json", edit)


def calibration(**changes: Any) -> Damage:
    return change(lambda found: found["calibration"].update(changes))


def head(edit: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path, edit_json: EditJson) -> None:
        tensors = load_file(folder / "head.safetensors")
        edit(tensors)
        save_file(tensors, folder / "head.safetensors")
        seal(folder, edit_json)

    return damage


def edited_taxonomy(edit: Callable[[list[Category]], object]) -> Damage:
    def damage(folder: Path, edit_json: EditJson) -> None:
        table = pq.read_table(folder / "taxonomy.parquet")
        categories = list(Taxonomy.from_table(table))
        edit(categories)
        pq.write_table(Taxonomy(categories, "2026-01").to_table(), folder / "taxonomy.parquet")
        seal(folder, edit_json)

    return damage


def no_parquet(folder: Path, edit_json: EditJson) -> None:
    (folder / "taxonomy.parquet").write_bytes(b"category_id,category_path")
    seal(folder, edit_json)


def no_taxonomy(folder: Path, edit_json: EditJson) -> None:
    pq.write_table(pa.table({"category_id": ["a"]}), folder / "taxonomy.parquet")
    seal(folder, edit_json)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(record(format="2.0"), "format 2.0 is newer than 1.2.*update", id="newer"),
        pytest.param(change(lambda r: r.pop("format")), "not a model bundle", id="no format"),
        pytest.param(record(format="²"), "not a model bundle", id="format is no number"),
        pytest.param(change(dict.clear), "not a model bundle", id="empty"),
        pytest.param(change(lambda r: r["classes"].insert(0, "a-1")), "head", id="extra class"),
        pytest.param(change(lambda r: r["classes"].pop()), "head", id="missing class"),
        pytest.param(change(lambda r: r["classes"].reverse()), "order", id="other order"),
        pytest.param(record(classes=["a", "nosuch"]), "'nosuch'", id="unknown class"),
        pytest.param(record(classes=[1, None]), "bundle.json", id="classes are no names"),
        pytest.param(change(lambda r: r.pop("classes")), "classes", id="no classes"),
        pytest.param(calibration(thresholds=[0.5] * 4), "4 thresholds for 3 levels", id="more"),
        pytest.param(calibration(thresholds=[]), "0 thresholds for 3 levels", id="no thresholds"),
        pytest.param(calibration(thresholds=["x"] * 3), "bundle.json", id="thresholds are text"),
        pytest.param(
            calibration(thresholds=[float("nan")] * 3), "thresholds.0 .*finite", id="NaN threshold"
        ),
        pytest.param(calibration(temperature=0), "temperature", id="temperature 0"),
        pytest.param(calibration(temperature=float("nan")), "temperature", id="NaN temperature"),
        pytest.param(calibration(temperature=None), "bundle.json", id="no temperature"),
        pytest.param(record(calibration=[]), "bundle.json", id="calibration is a list"),
        pytest.param(record(training=None), "bundle.json", id="no training"),
        pytest.param(record(files={}), "files must be exactly", id="no digests"),
        pytest.param(change(lambda r: r["files"].update(more="")), "files must be", id="more"),
        pytest.param(record(taxonomy_digest="0" * 64), "taxonomy", id="another taxonomy's digest"),
        pytest.param(record(licence="mit"), "licence", id="licence is not the trunk's"),
        pytest.param(
            head(lambda t: t["weight"].__setitem__((0, 0), np.nan)), "not finite", id="NaN head"
        ),
        pytest.param(
            head(lambda t: t["bias"].__setitem__(0, np.inf)), "not finite", id="infinite bias"
        ),
        pytest.param(head(lambda t: t.pop("bias")), "tensors are", id="no bias"),
        pytest.param(
            head(lambda t: t.update(weight=t["weight"][:, :-1].copy())), "tensors are", id="narrow"
        ),
        pytest.param(no_parquet, "taxonomy.parquet", id="taxonomy is no Parquet"),
        pytest.param(no_taxonomy, "category_path", id="taxonomy without paths"),
        pytest.param(edited_taxonomy(lambda c: c.pop()), "'t-1'", id="class not in taxonomy"),
        pytest.param(
            edited_taxonomy(lambda c: c.append(Category("z", ("Zoo",), None))),
            "taxonomy",
            id="another taxonomy with the classes",
        ),
    ],
)
def test_refusals(folder: Path, edit_json: EditJson, damage: Damage, message: str) -> None:
    damage(folder, edit_json)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(folder)
    assert str(folder) in str(caught.value)


def test_a_newer_minor_format_with_new_keys_loads(folder: Path, edit_json: EditJson) -> None:
    major = FORMAT.partition(".")[0]
    record(format=f"{major}.99", invented_later=True)(folder, edit_json)
    load_bundle(folder)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"bundle.json: No such file"):
        load_bundle(tmp_path / "nosuch")


# Saving


def test_an_older_bundle_is_replaced(folder: Path, bundle: Bundle) -> None:
    (folder / "leftover.txt").write_text("of the older bundle", encoding="utf-8")
    saved = save_bundle(replace(bundle, training={"second": True}), folder)
    assert saved.training == {"second": True}
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {*FILES, "bundle.json"}


def test_other_content_is_not_overwritten(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"photo")
    with pytest.raises(BundleError, match="is not a bundle; choose another folder"):
        save_bundle(bundle, tmp_path)
    with pytest.raises(BundleError, match="is not a bundle; choose another folder"):
        save_bundle(bundle, tmp_path / "holiday.jpg")
    assert (tmp_path / "holiday.jpg").read_bytes() == b"photo"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_empty_folder_is_used(bundle: Bundle, tmp_path: Path) -> None:
    assert save_bundle(bundle, tmp_path).digest == bundle.digest
    assert json.loads((tmp_path / "bundle.json").read_text(encoding="utf-8"))["format"] == FORMAT
