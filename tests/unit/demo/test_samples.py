import csv
import hashlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.samples import SampleSummary, draw_sample_listings, listings
from demo.samples.products import KINDS, NEW_KIND, Kind, draw_product
from demo.samples.scenes import draw_scene
from schemas.errors import SettingsError
from schemas.taxonomy_readers import read_taxonomy
from seer_model.photos.decode import decode_photo
from seer_model.photos.limits import PhotoLimits, PhotoRejected

Rows = list[dict[str, str]]
COUNT = 24

each_kind = pytest.mark.parametrize(
    "kind", [*KINDS, NEW_KIND], ids=lambda kind: kind.category_path[-1]
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleSummary:
    return draw_sample_listings(tmp_path_factory.mktemp("sample"), COUNT, seed=3)


@pytest.fixture
def blank_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    def blank(kind: Kind, seed: int, rng: np.random.Generator) -> Image.Image:
        return Image.new("RGB", (16, 16), "teal")

    monkeypatch.setattr(listings, "draw_scene", blank)


def rows_of(sample: SampleSummary) -> Rows:
    with sample.listings_csv.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def is_broken(file: Path) -> bool:
    try:
        decode_photo(file.read_bytes(), 64, PhotoLimits())
    except (FileNotFoundError, PhotoRejected):
        return True
    return False


def splits_by_category(rows: Rows) -> dict[str, dict[str, set[str]]]:
    ids: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        ids[row["category_id"]][row["split"]].add(row["listing_id"])
    return ids


def test_summary_counts_what_was_written(sample: SampleSummary) -> None:
    rows = rows_of(sample)
    assert list(rows[0]) == ["listing_id", "image_index", "path", "category_id", "split"]
    assert sample.listings == COUNT == len({row["listing_id"] for row in rows})
    assert sample.photos == len(rows)
    assert sample.kinds == 8 == len({row["category_id"] for row in rows})


def test_paths_are_relative_unique_and_complete(sample: SampleSummary) -> None:
    paths = {row["path"] for row in rows_of(sample)}
    on_disk = {f"images/{file.name}" for file in sample.images.iterdir()}
    assert len(paths) == sample.photos
    assert on_disk < paths
    assert {Path(path).suffix for path in paths} == {".jpg", ".png", ".webp"}


def test_photos_of_a_listing_are_numbered_from_zero(sample: SampleSummary) -> None:
    indexes = defaultdict(list)
    for row in rows_of(sample):
        indexes[row["listing_id"]].append(int(row["image_index"]))
    assert all(found == list(range(len(found))) for found in indexes.values())
    assert {len(found) for found in indexes.values()} <= {1, 2, 3, 4}


def test_exactly_the_announced_number_of_photos_is_broken(sample: SampleSummary) -> None:
    folder = sample.listings_csv.parent
    broken = [row for row in rows_of(sample) if is_broken(folder / row["path"])]
    assert len(broken) == sample.broken > 0
    assert {row["split"] for row in broken} <= {"train", "new"}


def test_a_good_photo_has_the_format_of_its_name(sample: SampleSummary) -> None:
    formats = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
    orientations = set()
    for file in sample.images.iterdir():
        if not is_broken(file):
            with Image.open(file) as photo:
                assert photo.format == formats[file.suffix]
                assert min(photo.size) >= 360
                orientations.add(photo.getexif().get(0x0112, 1))
    assert orientations > {1}


def test_every_label_is_a_leaf_of_the_taxonomy_and_some_leaves_are_unused(
    sample: SampleSummary,
) -> None:
    taxonomy = read_taxonomy(sample.taxonomy_csv)
    leaves = {c.category_id for c in taxonomy} - {c.parent_id for c in taxonomy}
    used = {row["category_id"] for row in rows_of(sample)}
    assert used < leaves
    assert len(leaves) > len(KINDS)
    assert all(len(taxonomy.ancestors(leaf)) == 2 for leaf in used)


def test_same_seed_same_bytes_and_another_seed_another_sample(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        draw_sample_listings(tmp_path / name, 6, seed)
    first, second, other = (digests(tmp_path / name) for name in "abc")
    assert first == second
    assert first["listings.csv"] != other["listings.csv"]
    assert not set(first.values()) & {
        digest for path, digest in other.items() if path.startswith("images")
    }


def test_several_processes_draw_the_same_bytes_in_order(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    draw_sample_listings(tmp_path / "one", 6, seed=5)
    draw_sample_listings(
        tmp_path / "two", 6, 5, lambda done, total: calls.append((done, total)), processes=2
    )
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert calls == [(done, 6) for done in range(1, 7)]


@pytest.mark.usefixtures("blank_scenes")
def test_every_kind_is_in_every_split_in_the_promised_shares(tmp_path: Path) -> None:
    rows = rows_of(draw_sample_listings(tmp_path, 200))
    by_category = splits_by_category(rows)
    new_kind = by_category.pop("home/garden/house-plant")
    assert {split: len(ids) for split, ids in new_kind.items()} == {"new": 4}
    assert len(by_category) == len(KINDS)
    assert all(set(splits) == {"train", "val", "new"} for splits in by_category.values())
    shares = {
        split: sum(len(splits[split]) for splits in by_category.values()) / 200
        for split in ("train", "val", "new")
    }
    assert shares == pytest.approx({"train": 0.5, "val": 0.3, "new": 0.18}, abs=0.03)


@pytest.mark.usefixtures("blank_scenes")
def test_two_new_listings_have_broken_photos_only(tmp_path: Path) -> None:
    sample = draw_sample_listings(tmp_path, 200)
    broken = defaultdict(list)
    for row in rows_of(sample):
        broken[row["split"], row["listing_id"]].append(is_broken(tmp_path / row["path"]))
    hopeless = [split for (split, _), flags in broken.items() if all(flags)]
    assert hopeless == ["new", "new"]
    assert 0.02 < sample.broken / sample.photos < 0.08
    assert any(any(flags) for (split, _), flags in broken.items() if split == "train")


@pytest.mark.usefixtures("blank_scenes")
@pytest.mark.parametrize("count", range(6, 60, 7))
def test_every_split_of_a_small_sample_has_readable_photos(tmp_path: Path, count: int) -> None:
    sample = draw_sample_listings(tmp_path, count)
    rows = rows_of(sample)
    readable = {
        (row["category_id"], row["split"]) for row in rows if not is_broken(tmp_path / row["path"])
    }
    assert {split for _, split in readable} == {"train", "val", "new"}
    taught = sample.kinds - ("home/garden/house-plant" in {row["category_id"] for row in rows})
    assert sum(split == "train" for _, split in readable) == taught
    assert sum(split == "val" for _, split in readable) == taught


@pytest.mark.usefixtures("blank_scenes")
def test_a_missing_photo_is_missing_though_an_earlier_sample_left_one(tmp_path: Path) -> None:
    sample = draw_sample_listings(tmp_path, COUNT)
    absent = [
        tmp_path / row["path"] for row in rows_of(sample) if not (tmp_path / row["path"]).exists()
    ]
    for path in absent:
        path.write_bytes(b"an earlier photo")
    draw_sample_listings(tmp_path, COUNT)
    assert absent
    assert not any(path.exists() for path in absent)


@pytest.mark.usefixtures("blank_scenes")
def test_progress_counts_listings(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    draw_sample_listings(tmp_path, 7, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 7) for done in range(1, 8)]


def test_too_few_listings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least 6"):
        draw_sample_listings(tmp_path, 5)
    assert not list(tmp_path.iterdir())


@each_kind
def test_a_product_fills_its_picture_without_touching_the_edges_much(kind: Kind) -> None:
    alpha = np.asarray(draw_product(kind, 1, 96).getchannel("A"))
    assert alpha.shape == (96, 96)
    assert 0.08 < (alpha > 128).mean() < 0.8
    assert alpha[[0, -1]].max() == alpha[:, [0, -1]].max() == 0


@each_kind
def test_a_seed_is_one_product_in_every_size(kind: Kind) -> None:
    small, again, large = (draw_product(kind, 4, side) for side in (96, 96, 192))
    assert small.tobytes() == again.tobytes()
    assert small.tobytes() != draw_product(kind, 5, 96).tobytes()
    difference = np.asarray(large.reduce(2), np.int16) - np.asarray(small, np.int16)
    assert np.abs(difference[..., 3]).mean() < 8


@each_kind
def test_two_photos_of_a_product_differ(kind: Kind) -> None:
    first, second = (draw_scene(kind, 4, np.random.default_rng(seed)) for seed in (0, 1))
    assert first.mode == second.mode == "RGB"
    assert first.tobytes() != second.tobytes()


def test_kinds_differ_in_shape() -> None:
    shapes = []
    for kind in (*KINDS, NEW_KIND):
        masks = [draw_product(kind, seed, 48).getchannel("A") for seed in range(8)]
        shapes.append(np.mean([np.asarray(mask) > 128 for mask in masks], axis=0))
    for position, shape in enumerate(shapes):
        for other in shapes[:position]:
            assert np.abs(shape - other).mean() > 0.05
