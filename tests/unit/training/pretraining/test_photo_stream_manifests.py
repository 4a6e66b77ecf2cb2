"""Which manifests a stream reads, and which manifests and numbers it refuses."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo.samples.products import KINDS
from demo.samples.scenes import draw_scene
from schemas.errors import DataContractError, SettingsError
from schemas.manifest import MANIFEST
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.pixels import prepare_photo
from tests.support.photo_manifests import (
    decoding_threads,
    epoch_of,
    open_stream,
    photo,
    row,
    write,
    write_photos,
)


def test_photos_by_address_are_decoded_like_everywhere_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for seed, kind in enumerate(KINDS[:4]):
        draw_scene(kind, seed, rng).save(tmp_path / f"{seed} é.jpg")
    files = sorted(tmp_path.glob("*.jpg"))
    rows = [row(n, uri=uri) for n, uri in enumerate([str(files[0]), *(f.as_uri() for f in files)])]
    manifest = write(rows[1:], tmp_path / "manifest" / "part-0.parquet").parent
    (batch,) = open_stream(manifest, photo_size=64).batches(0)
    assert batch.shape == (4, 64, 64, 3)
    expected = {prepare_photo(file.read_bytes(), 64, PhotoLimits()).tobytes() for file in files}
    assert {pixels.numpy().tobytes() for pixels in batch} == expected


@pytest.mark.parametrize("partitioned", [True, False])
def test_partitions_and_names_to_ignore(partitioned: bool, tmp_path: Path) -> None:
    for part in range(3):
        folder = tmp_path / f"ds=2026-01-0{part}" if partitioned else tmp_path
        write([row(part, photo(part))], folder / f"part-{part}.parquet")
    write([row(9, photo(9))], tmp_path / "_staging" / "part-0.parquet")
    write([row(9, photo(9))], tmp_path / "_part-0.parquet")
    write([row(9, photo(9))], tmp_path / ".part-0.parquet")
    (tmp_path / "_SUCCESS").touch()
    (seen,) = epoch_of(open_stream(tmp_path, batch_size=3))
    assert sorted(seen) == [0, 1, 2]


def test_only_the_splits_asked_for(tmp_path: Path) -> None:
    splits = ["train", "val", None, "extra"]
    rows = [row(n, photo(n), split=splits[n % 4]) for n in range(40)]
    write(rows[:25], tmp_path / "a.parquet", row_group=6)
    write(rows[25:], tmp_path / "b.parquet", row_group=6)

    def seen(wanted: list[str] | None) -> list[int]:
        stream = open_stream(tmp_path, splits=wanted, batch_size=2)
        return sorted(itertools.chain(*epoch_of(stream)))

    assert seen(["train"]) == [n for n in range(40) if n % 4 == 0]
    assert seen(["extra", "train"]) == [n for n in range(40) if n % 4 in (0, 3)]
    assert seen(None) == list(range(40))
    with pytest.raises(DataContractError, match=r": no photo in the splits none, such$"):
        seen(["such", "none"])


@pytest.mark.parametrize(
    "column",
    [
        lambda texts: pa.array(texts, pa.large_string()),
        lambda texts: pa.array(texts).dictionary_encode(),
        lambda texts: pa.array(texts, pa.string_view()),
    ],
    ids=["large", "dictionary", "view"],
)
def test_other_layouts_of_strings(column: Callable[[list[str]], Any], tmp_path: Path) -> None:
    for n in range(8):
        (tmp_path / f"{n}.png").write_bytes(photo(n))
    table = pa.table(
        {
            "listing_id": column([str(n) for n in range(8)]),
            "image_index": pa.array([0] * 8, pa.int64()),
            "image_uri": column([str(tmp_path / f"{n}.png") for n in range(8)]),
            "split": column(["train", "val"] * 4),
            "image_bytes": pa.nulls(8),
            "image_key": pa.array([None] * 8, pa.int32()),
            "more": pa.nulls(8),
        }
    )
    (tmp_path / "manifest").mkdir()
    pq.write_table(table, tmp_path / "manifest" / "part-0.parquet")
    stream = open_stream(tmp_path / "manifest", splits=["val"])
    assert sorted(epoch_of(stream)[0]) == [1, 3, 5, 7]


def test_no_photos_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match="absent: no such file or folder"):
        open_stream(tmp_path / "absent")
    with pytest.raises(DataContractError, match=r": no photo$"):
        open_stream(tmp_path)
    write([], tmp_path / "part-0.parquet")
    with pytest.raises(DataContractError, match=r": no photo$"):
        open_stream(tmp_path)


def test_fewer_photos_than_a_batch(tmp_path: Path) -> None:
    manifest = write_photos(tmp_path, 7)
    with pytest.raises(
        SettingsError, match=r"7 photos do not fill one batch of 8 \(4 in each of 2 processes\)"
    ):
        open_stream(manifest, world_size=2)


def test_columns_that_break_the_contract(tmp_path: Path) -> None:
    write_photos(tmp_path, 20)
    file = tmp_path / "ds=2026-01-02" / "part-0.parquet"
    names = ["listing_id", "image_index", "image_bytes"]
    write([row(0, photo(0))], file, schema=pa.schema([MANIFEST.field(name) for name in names]))
    assert open_stream(tmp_path).steps_per_epoch == 3
    with pytest.raises(DataContractError, match=r"ds=2026-01-02/part-0\.parquet: column split"):
        open_stream(tmp_path, splits=["train"])
    write([row(0)], file, schema=pa.schema([MANIFEST.field(name) for name in names[:2]]))
    with pytest.raises(
        DataContractError, match=r"ds=2026-01-02/part-0\.parquet: columns image_uri"
    ):
        open_stream(tmp_path)


def damage_footer(data: bytes) -> bytes:
    return data[:-20]


def damage_pages(data: bytes) -> bytes:
    start = data.index(b"\x89PNG")
    return data[: start - 200] + bytes(400) + data[start + 200 :]


@pytest.mark.parametrize(
    "damage",
    [
        damage_footer,
        damage_pages,
        lambda _: b"",
        lambda _: b"PAR1 text PAR1",
        lambda data: data[4:],
    ],
    ids=["footer", "pages", "empty", "text", "head"],
)
def test_a_damaged_file_is_one_line_that_names_it(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    rows = [row(n, photo(n) + bytes(500)) for n in range(20)]
    for name in ("a", "b"):
        pq.write_table(
            pa.Table.from_pylist(rows, MANIFEST),
            tmp_path / f"{name}.parquet",
            compression="none",
            use_dictionary=False,
            write_page_checksum=True,
        )
    file = tmp_path / "b.parquet"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataContractError, match=r"b\.parquet: not readable as Parquet") as caught:
        list(open_stream(tmp_path).batches(0))
    assert "\n" not in str(caught.value)
    assert not decoding_threads()


def test_a_file_that_changes_during_training(tmp_path: Path) -> None:
    manifest = write_photos(tmp_path, 48)
    stream = open_stream(manifest)
    file = manifest / "ds=2026-01-02" / "part-0.parquet"
    write([row(0, photo(0))] * 9, file)
    with pytest.raises(
        DataContractError, match=r"part-0\.parquet: was changed during the training"
    ):
        list(stream.batches(0))
    file.unlink()
    with pytest.raises(DataContractError, match=r"part-0\.parquet: no such file or folder"):
        list(stream.batches(0))


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 0},
        {"photo_size": 0},
        {"decode_threads": 0},
        {"shuffle_buffer": 0},
        {"seed": -1},
        {"rank": 1},
        {"rank": -1},
    ],
    ids=str,
)
def test_numbers_out_of_range(change: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be"):
        open_stream(tmp_path, **change)
