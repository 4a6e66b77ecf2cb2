"""Tamper with a model bundle, and check how it is refused."""

from collections.abc import Callable
from pathlib import Path
from time import thread_time

import pytest

from schemas.errors import BundleError
from seer_model.categorizer.bundle import load_bundle
from seer_model.files import digest_file

EditJson = Callable[..., None]

FILES = [
    "backbone/backbone.json",
    "backbone/weights.safetensors",
    "head.safetensors",
    "taxonomy.parquet",
    "familiarity.safetensors",
]


def seal(folder: Path, edit_json: EditJson) -> None:
    """Update all digests after tampering, as the author of a bundle could."""
    weights = digest_file(folder / "backbone/weights.safetensors")
    edit_json(folder / "backbone/backbone.json", lambda r: r.update(weights_sha256=weights))
    files = {name: digest_file(folder / name) for name in FILES}
    edit_json(folder / "bundle.json", lambda r: r.update(files=files))


def refusal(folder: Path, load: Callable[[Path], object] = load_bundle) -> str:
    """Check that loading fails fast, with one line that names the folder; return that line."""
    before = thread_time()
    with pytest.raises(BundleError) as caught:
        load(folder)
    assert thread_time() - before < 5
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 1500
    assert str(folder) in message
    return message
