"""Mutated bundles and checkpoints load, or are refused in one line.

`make soak` tries many more mutations.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas.errors import BundleError
from seer_model.backbones.vissl import load_vissl
from seer_model.categorizer.bundle import load_bundle
from tests.support.mutations import SOAKING, examples, mutate
from tests.support.refusals import FILES, EditJson, seal
from tests.support.trunks import published_seer, some_trunk, trunk_of

HEADER_BYTES = 100_000
"""Only the first bytes of a weights file are mutated; the rest are numbers."""

HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**63, 10**400, 0.5, float("nan"), float("inf")),
    *("", "0.5", "regnety_004", "a\nb", "x" * 10_000, "\x00", "../x", "\ud800"),
    *([], [[]], [None] * 3, {}, {"": {}}, [0.5] * 3, {"image_size": 64}),
]


@pytest.fixture(scope="module")
def changing(saved_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose files every example overwrites."""
    folder = tmp_path_factory.mktemp("fuzz") / "bundle"
    shutil.copytree(saved_bundle, folder)
    return folder


def loads_or_is_refused(load: Callable[[Path], object], path: Path) -> None:
    try:
        load(path)
    except BundleError as error:
        message = str(error)
        assert len(message.splitlines()) == 1
        assert len(message) < 2000
        assert str(path) in message


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to all values inside a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(below, (*path, key))


def change_value(record: Any, seed: int) -> Any:
    """Replace, remove, add or exchange one value of a record."""
    rng = random.Random(seed)
    at = rng.choice(list(places(record)))
    if not at:
        return rng.choice(HOSTILE)
    parent = record
    for key in at[:-1]:
        parent = parent[key]
    what = rng.randrange(4)
    if what == 0 or (what == 1 and isinstance(parent, list)):
        del parent[at[-1]]
    elif what == 1:
        parent[f"{at[-1]}x"] = parent[at[-1]]
    else:
        parent[at[-1]] = rng.choice(HOSTILE)
    return record


def restore(saved: Path, folder: Path) -> None:
    for name in ("bundle.json", *FILES):
        if (saved / name).stat().st_size < 1 << 20:
            shutil.copyfile(saved / name, folder / name)


fuzzing = settings(
    max_examples=examples(40, 3000),
    derandomize=not SOAKING,
    suppress_health_check=[HealthCheck.too_slow],
)


@given(st.sampled_from(["bundle.json", "backbone/backbone.json"]), st.integers(0, 2**32))
@fuzzing
@example("backbone/backbone.json", 3486599)  # A licence of 10,000 letters.
def test_fuzz_values_of_records(
    saved_bundle: Path, changing: Path, edit_json: EditJson, name: str, seed: int
) -> None:
    restore(saved_bundle, changing)
    record = json.loads((changing / name).read_text(encoding="utf-8"))
    (changing / name).write_text(json.dumps(change_value(record, seed)), encoding="utf-8")
    if name != "bundle.json" and seed % 2:
        seal_record(changing, edit_json)
    loads_or_is_refused(load_bundle, changing)


def seal_record(folder: Path, edit_json: EditJson) -> None:
    """Update all digests, unless the backbone's record is no longer an object."""
    try:
        seal(folder, edit_json)
    except (AttributeError, TypeError):
        return


@given(
    st.sampled_from(["bundle.json", "backbone/backbone.json", "head.safetensors"] * 2 + FILES),
    st.integers(0, 2**32),
)
@fuzzing
def test_fuzz_bytes_of_files(
    saved_bundle: Path, changing: Path, edit_json: EditJson, name: str, seed: int
) -> None:
    restore(saved_bundle, changing)
    data = (saved_bundle / name).read_bytes()
    others = [(saved_bundle / other).read_bytes()[:HEADER_BYTES] for other in FILES]
    changed = mutate(data[:HEADER_BYTES], others, seed) + data[HEADER_BYTES:]
    (changing / name).write_bytes(changed)
    if name.endswith(("safetensors", "parquet")):
        seal(changing, edit_json)
    loads_or_is_refused(load_bundle, changing)
    if name == "backbone/weights.safetensors":
        (changing / name).write_bytes(data)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A stem and one unexpected tensor, in both of torch's file formats."""
    checkpoint = published_seer({k: t for k, t in some_trunk().items() if k.startswith("stem")})
    trunk_of(checkpoint)["head"] = torch.zeros(1)  # Refused before the comparison with all trunks.
    path, found = tmp_path_factory.mktemp("fuzz") / "seer.torch", {}
    for form in ("zip", "legacy"):
        torch.save(checkpoint, path, _use_new_zipfile_serialization=form == "zip")
        found[form] = path.read_bytes()
    return found


@given(st.sampled_from(["zip", "legacy"]), st.integers(0, 2**32))
@settings(max_examples=examples(200, 30_000), derandomize=not SOAKING)
def test_fuzz_checkpoints(
    checkpoints: dict[str, bytes], changing: Path, form: str, seed: int
) -> None:
    path = changing.parent / "seer.torch"
    path.write_bytes(mutate(checkpoints[form], list(checkpoints.values()), seed))
    loads_or_is_refused(load_vissl, path)
