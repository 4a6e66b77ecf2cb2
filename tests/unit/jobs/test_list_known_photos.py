"""jobs.list_known_photos: photos of a folder and hashes of others become one list."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from demo.samples.products import KINDS
from demo.samples.scenes import draw_scene
from jobs import list_known_photos
from schemas.columns import column_problems
from schemas.known_photos import KNOWN_PHOTOS
from seer_model.photos.perceptual_hash import perceptual_hash
from tests.support.edited_photos import as_jpeg
from tests.support.embedding_rows import error_line

HASH = "f871f0c1c0f171c1829503270fe11e27ffa16827f40fa07a000f01fa07dffffb"
MakeList = Callable[..., dict[str, Any]]


@pytest.fixture
def make_list(tmp_path: Path) -> MakeList:
    """Runs the job in this process and gives its report; `code` is the exit code expected."""

    def run(*flags: str, code: int = 0) -> dict[str, Any]:
        report = tmp_path / "report.json"
        argv = ["--rule", "stolen", "--action", "block", "--report", str(report)]
        argv += ["--output", str(tmp_path / "out" / "known.parquet")]
        assert list_known_photos.main([*argv, *flags]) == code
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    scene = draw_scene(KINDS[0], 1, np.random.default_rng(1))
    (folder / "sub" / "crème brûlée.jpg").write_bytes(as_jpeg(scene))
    (folder / "plain.jpg").write_bytes(as_jpeg(scene.resize((1, 1)).resize((200, 200))))
    (folder / "broken.jpg").write_bytes(as_jpeg(scene)[:2000])
    (folder / "notes.txt").write_text("no photo", encoding="utf-8")
    return folder


def listed(folder: Path) -> list[dict[str, Any]]:
    table = pq.read_table(folder / "out" / "known.parquet")
    assert not column_problems(table.schema, KNOWN_PHOTOS, KNOWN_PHOTOS.names)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_photos_are_listed_and_others_counted(
    make_list: MakeList, photos: Path, tmp_path: Path
) -> None:
    figures = make_list("--photos", str(photos))
    assert (figures["photos"], figures["hashes"]) == (1, 10)
    assert figures["not_listed"] == {"not_a_photo": 1, "too_plain": 1, "truncated": 1}
    rows = listed(tmp_path)
    assert {row["known_id"] for row in rows} == {"sub/crème brûlée.jpg"}
    assert len({row["variant"] for row in rows}) == 10
    assert len({row["hash"] for row in rows}) == 10


def test_hashes_of_others_are_added_and_a_later_action_wins(
    make_list: MakeList, photos: Path, tmp_path: Path
) -> None:
    make_list("--photos", str(photos))
    others = tmp_path / "others.csv"
    others.write_text(f"Hash,rule,action\n{HASH.upper()},,review\n{'0' * 64},fraud,\n")
    before = str(tmp_path / "out" / "known.parquet")
    figures = make_list("--hashes", str(others), "--add-to", before)
    assert (figures["photos_before"], figures["photos"], figures["hashes"]) == (1, 3, 14)
    rows = {(row["known_id"], row["variant"]): row for row in listed(tmp_path)}
    given = rows[HASH[:16], "whole"]
    assert (given["hash"].hex(), given["rule"], given["action"]) == (HASH, "stolen", "review")
    assert rows["0" * 16, "whole"]["rule"] == "fraud"

    figures = make_list("--photos", str(photos), "--add-to", before, "--action", "review")
    assert figures["hashes"] == 14, "listed again, not twice"
    actions = {row["action"] for row in listed(tmp_path) if row["known_id"].startswith("sub/")}
    assert actions == {"review"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("hash\nxyz\n", "line 2: expected a hash of 64 hexadecimal digits"),
        (f"hash\n{HASH}00\n", "line 2: expected a hash"),
        (f"hash,action\n{HASH},delete\n", "line 2: expected a hash"),
        ("key\nabc\n", "no column hash"),
    ],
)
def test_wrong_hashes_are_refused_in_one_line(
    make_list: MakeList,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str,
    said: str,
) -> None:
    path = tmp_path / "hashes.csv"
    path.write_text(content, encoding="utf-8")
    make_list("--hashes", str(path), code=3)
    assert said in error_line(capsys)


def test_nothing_to_list_is_refused(
    make_list: MakeList, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_list(code=2)
    assert "give --photos, --hashes or both" in error_line(capsys)
    (tmp_path / "empty").mkdir()
    make_list("--photos", str(tmp_path / "empty"), code=3)
    assert "no photo to list" in error_line(capsys)


def test_the_hashes_are_those_of_the_photo(
    make_list: MakeList, photos: Path, tmp_path: Path
) -> None:
    make_list("--photos", str(photos))
    scene = np.asarray(draw_scene(KINDS[0], 1, np.random.default_rng(1)))
    for variant, pixels in (("whole", scene), ("whole, mirrored", scene[:, ::-1])):
        (row,) = [row for row in listed(tmp_path) if row["variant"] == variant]
        other = int.from_bytes(perceptual_hash(pixels)[0])
        assert (int.from_bytes(row["hash"]) ^ other).bit_count() <= 31
