"""Tamper with a model bundle, and check how it is refused."""

from collections.abc import Callable
from pathlib import Path
from time import thread_time

import pytest

from schemas.errors import BundleError
from seer_model.backbones.backbone import NETWORK_FILES, load_backbone
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.categorizer.bundle import load_bundle
from seer_model.files import digest_file

EditJson = Callable[..., None]

FILES = [
    "backbone/backbone.json",
    "backbone/weights.safetensors",
    "head.safetensors",
    "taxonomy.parquet",
    "backbone/network.xml",
    "backbone/network.bin",
    "familiarity.safetensors",
]


def seal(folder: Path, edit_json: EditJson) -> None:
    """Update all digests after tampering, as the author of a bundle could."""
    backbone = folder / "backbone"
    weights = digest_file(backbone / "weights.safetensors")
    network = {name: digest_file(backbone / name) for name in NETWORK_FILES}
    edit_json(
        backbone / "backbone.json",
        lambda r: r.update(weights_sha256=weights, network_sha256=network),
    )
    files = {name: digest_file(folder / name) for name in FILES}
    edit_json(folder / "bundle.json", lambda r: r.update(files=files))


def load_whole_bundle(folder: Path) -> object:
    """Load a bundle, its weights and its network included."""
    backbone = load_bundle(folder).backbone
    return backbone.build(), open_runtime(backbone)


def load_whole_backbone(folder: Path) -> object:
    """Load a backbone with its weights and its network."""
    backbone = load_backbone(folder)
    return backbone.build(), open_runtime(backbone)


def refusal(folder: Path, load: Callable[[Path], object] = load_whole_bundle) -> str:
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
