"""A screener's folder, which executors get: its rules, known photos and concepts."""

import hashlib
import shutil
from pathlib import Path

from seer_model.files import digest_file
from seer_model.screener.concepts import Concepts, load_concepts, save_concepts
from seer_model.screener.known_photos import KnownPhotos, read_known_photos
from seer_model.screener.rules import Rules
from seer_model.screener.screener import Screener

__all__ = ["load_screener", "save_screener", "screener_digest"]

_RULES, _KNOWN = "rules.json", "known_photos.parquet"


def screener_digest(rules: Rules, known: Path | None) -> str:
    """SHA-256 (hex) of the rules, and of the file of the known photos if there is one."""
    both = f"{rules.digest} {digest_file(known) if known else ''}"
    return hashlib.sha256(both.encode()).hexdigest()


def save_screener(
    rules: Rules, known: Path | None, concepts: Concepts | None, folder: Path
) -> None:
    """Write what `load_screener` reads into a new folder."""
    folder.mkdir(parents=True)
    (folder / _RULES).write_text(rules.model_dump_json(), encoding="utf-8")
    if known is not None:
        shutil.copyfile(known, folder / _KNOWN)
    if concepts is not None:
        save_concepts(concepts, folder)


def load_screener(folder: Path) -> Screener:
    """Open a screener's folder."""
    rules = Rules.model_validate_json((folder / _RULES).read_text(encoding="utf-8"))
    known = folder / _KNOWN
    return Screener(
        rules,
        KnownPhotos(read_known_photos(known)) if known.exists() else None,
        load_concepts(folder),
    )
