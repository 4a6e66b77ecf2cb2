"""Screen listings: the signals of their photos in, findings and an action out."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.screening import Action, FindingKind
from seer_model.backbones.embedder import TextLine
from seer_model.files import digest_file
from seer_model.photos.perceptual_hash import PhotoHashes
from seer_model.screener.known_photos import KnownMatch, KnownPhotos, read_known_photos
from seer_model.screener.rules import Rules

__all__ = ["Finding", "Screener", "load_screener", "save_screener", "screener_digest"]

_LONGEST_EVIDENCE = 200
_RULES, _KNOWN = "rules.json", "known_photos.parquet"


@dataclass(frozen=True)
class Finding:
    """What a rule found in a photo, as in `schemas.screening.SCREENING`."""

    rule: str
    kind: FindingKind
    action: Action
    image_index: int | None
    score: float | None
    evidence: str


class Screener:
    """Rules and known photos.

    Args:
        rules: The rules.
        known: The known photos, if there is a list.
    """

    def __init__(self, rules: Rules, known: KnownPhotos | None) -> None:
        self.rules = rules
        self.known = known

    def screen(self, listings: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[Finding]]:
        """Screen listings.

        Args:
            listings: The photos of each: `image_index`, `reject_reason`, and `hashes` and `text`
                as in `schemas.embeddings`, null or missing where they were not read.

        Returns:
            The findings of each listing, the strictest first, then by photo and rule.
        """
        photos = [photo for photos in listings for photo in photos]
        known = iter(self._known_photos(photos))
        found = []
        for listing in listings:
            findings = self._unreadable(listing)
            for photo in listing:
                findings += self._as_findings(photo, next(known))
                findings += self._texts(photo)
            found.append(sorted(findings, key=_order))
        return found

    def _known_photos(self, photos: Sequence[Mapping[str, Any]]) -> list[list[KnownMatch]]:
        if self.known is None:
            return [[] for _ in photos]
        return self.known.find([_hashes(photo.get("hashes")) for photo in photos])

    def _as_findings(
        self, photo: Mapping[str, Any], matches: Sequence[KnownMatch]
    ) -> list[Finding]:
        return [
            Finding(
                match.rule,
                FindingKind.KNOWN_PHOTO,
                match.action,
                photo["image_index"],
                1 - match.bits / 256,
                _cut(f"{match.known_id}: {match.bits} of 256 bits differ"),
            )
            for match in matches
        ]

    def _texts(self, photo: Mapping[str, Any]) -> list[Finding]:
        if not self.rules.text or photo["reject_reason"] is not None:
            return []
        if photo.get("text") is None:
            # It was decoded for the trunk; at the size for reading it took too much memory.
            unread = self._unread(photo, "its text could not be read")
            return [] if unread.action == Action.ALLOW else [unread]
        lines = [TextLine(**line) for line in photo["text"]["lines"]]
        found = [(rule, rule.find(lines)) for rule in self.rules.text]
        return [
            Finding(
                rule.name,
                FindingKind.TEXT,
                rule.action,
                photo["image_index"],
                match.score,
                _cut(match.evidence),
            )
            for rule, match in found
            if match is not None
        ]

    def _unreadable(self, listing: Sequence[Mapping[str, Any]]) -> list[Finding]:
        """Photos that could not be read, where the rules ask for an action."""
        rejected = [photo for photo in listing if photo["reject_reason"] is not None]
        rule = self.rules.unreadable
        enough = len(rejected) == len(listing) if rule.photos == "all" else bool(rejected)
        if not enough or rule.action == Action.ALLOW:
            return []
        return [self._unread(photo, photo["reject_reason"]) for photo in rejected]

    def _unread(self, photo: Mapping[str, Any], evidence: str) -> Finding:
        kind = FindingKind.UNREADABLE
        action = self.rules.unreadable.action
        return Finding(kind, kind, action, photo["image_index"], None, evidence)


def _order(finding: Finding) -> tuple[int, int, str]:
    return -finding.action.strictness, finding.image_index or 0, finding.rule


def _hashes(stored: Mapping[str, Any] | None) -> PhotoHashes | None:
    if stored is None:
        return None
    return PhotoHashes(stored["whole"], stored["unframed"], stored["quality"])


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_EVIDENCE else text[: _LONGEST_EVIDENCE - 1] + "…"


def screener_digest(rules: Rules, known: Path | None) -> str:
    """SHA-256 (hex) of the rules, and of the file of the known photos if there is one."""
    both = f"{rules.digest} {digest_file(known) if known else ''}"
    return hashlib.sha256(both.encode()).hexdigest()


def save_screener(rules: Rules, known: Path | None, folder: Path) -> None:
    """Write what `load_screener` reads into a new folder."""
    folder.mkdir(parents=True)
    (folder / _RULES).write_text(rules.model_dump_json(), encoding="utf-8")
    if known is not None:
        shutil.copyfile(known, folder / _KNOWN)


def load_screener(folder: Path) -> Screener:
    """Open a screener's folder."""
    rules = Rules.model_validate_json((folder / _RULES).read_text(encoding="utf-8"))
    known = folder / _KNOWN
    return Screener(rules, KnownPhotos(read_known_photos(known)) if known.exists() else None)
