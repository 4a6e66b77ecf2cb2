"""Screen listings: the signals of their photos in, findings and an action out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from schemas.screening import SCREENING, Action, FindingKind
from seer_model.backbones.embedder import TextLine
from seer_model.photos.perceptual_hash import PhotoHashes
from seer_model.screener.concepts import Concept, Concepts
from seer_model.screener.rules import Rules

if TYPE_CHECKING:  # A screener that is served knows no photos, and has no faiss.
    from seer_model.screener.known_photos import KnownMatch, KnownPhotos

__all__ = ["SCREENED", "Finding", "Screener"]

SCREENED: pa.Schema = pa.schema(
    [
        SCREENING.field(name)
        for name in ("listing_id", "action", "findings", "photos_screened", "photos_rejected")
    ]
)
"""What a screener says of a listing; the rest of its row is the run's."""


_LONGEST_EVIDENCE = 200


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
    """Rules, known photos and learned concepts.

    Args:
        rules: The rules.
        known: The known photos, if there is a list.
        concepts: The concepts, if there is a model of them.
    """

    def __init__(
        self, rules: Rules, known: "KnownPhotos | None" = None, concepts: Concepts | None = None
    ) -> None:
        self.rules = rules
        self.known = known
        self.concepts = concepts

    def rows(
        self, listing_ids: Sequence[str], listings: Sequence[Sequence[Mapping[str, Any]]]
    ) -> pa.RecordBatch:
        """Screen listings as `screen` does; returns `SCREENED`, a row each, in order."""
        rows = []
        for listing, photos, found in zip(
            listing_ids, listings, self.screen(listings), strict=True
        ):
            rejected = sum(photo["reject_reason"] is not None for photo in photos)
            rows.append(
                {
                    "listing_id": listing,
                    "action": found[0].action if found else Action.ALLOW,
                    "findings": [asdict(finding) for finding in found],
                    "photos_screened": len(photos) - rejected,
                    "photos_rejected": rejected,
                }
            )
        return pa.RecordBatch.from_pylist(rows, schema=SCREENED)

    def screen(self, listings: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[Finding]]:
        """Screen listings.

        Args:
            listings: The photos of each: `image_index`, `reject_reason`, and `vector`, `hashes` and
                `text` as in `schemas.embeddings`, null or missing where they were not read.

        Returns:
            The findings of each listing, the strictest first, then by photo and rule.
        """
        photos = [photo for photos in listings for photo in photos]
        known = iter(self._known_photos(photos))
        concepts = iter(self._concepts(photos))
        found = []
        for listing in listings:
            findings = self._unreadable(listing)
            for photo in listing:
                findings += self._as_findings(photo, next(known))
                findings += self._texts(photo)
                findings += next(concepts)
            found.append(sorted(findings, key=_order))
        return found

    def _known_photos(self, photos: Sequence[Mapping[str, Any]]) -> "list[list[KnownMatch]]":
        if self.known is None:
            return [[] for _ in photos]
        return self.known.find([_hashes(photo.get("hashes")) for photo in photos])

    def _as_findings(
        self, photo: Mapping[str, Any], matches: "Sequence[KnownMatch]"
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

    def _concepts(self, photos: Sequence[Mapping[str, Any]]) -> list[list[Finding]]:
        """What each photo shows of the concepts."""
        found: list[list[Finding]] = [[] for _ in photos]
        readable = [i for i, photo in enumerate(photos) if photo.get("vector") is not None]
        if self.concepts is None or not readable:
            return found
        limits = [self._limits(concept) for concept in self.concepts.concepts]
        scores = self.concepts.probabilities([photos[i]["vector"] for i in readable])
        for i, of_photo in zip(readable, scores.tolist(), strict=True):
            for name, of_concept, score in zip(self.concepts.names, limits, of_photo, strict=True):
                reached = [(action, limit) for action, limit in of_concept if score >= limit]
                if reached:
                    action, limit = max(reached, key=lambda each: each[0].strictness)
                    found[i].append(
                        Finding(
                            name,
                            FindingKind.CONCEPT,
                            action,
                            photos[i]["image_index"],
                            score,
                            f"probability {score:.3f}, {action} from {limit:.3f} on",
                        )
                    )
        return found

    def _limits(self, concept: Concept) -> list[tuple[Action, float]]:
        """From which probability on there is which action: by the rules, or else by the model.

        Where the model has no threshold to block by, there is a review instead.
        """
        limits = {Action.REVIEW: concept.review_at}
        if concept.block_at is not None:
            limits[Action.BLOCK] = concept.block_at
        ruled = [rule for rule in self.rules.concept if rule.name == concept.name]
        if not ruled:
            return list(limits.items())
        return [
            (rule.action, rule.least_score)
            if rule.least_score is not None
            else (rule.action, limits[rule.action])
            if rule.action in limits
            else (Action.REVIEW, concept.review_at)
            for rule in ruled
            if rule.action != Action.ALLOW
        ]

    def unmet_rules(self) -> list[str]:
        """What the rules ask of concepts and the model cannot do, a line each."""
        blocking = {concept.name: concept.block_at for concept in self._all_concepts()}
        unmet = []
        for rule in self.rules.concept:
            if rule.name not in blocking:
                unmet.append(f"the rule for the concept {rule.name!r}: no model knows it")
            elif rule.action == Action.BLOCK and rule.least_score is blocking[rule.name] is None:
                unmet.append(
                    f"the rule for the concept {rule.name!r}: the model has no threshold to block "
                    "by, so it is reviewed; give the rule a least_score"
                )
        return unmet

    def _all_concepts(self) -> Sequence[Concept]:
        return self.concepts.concepts if self.concepts is not None else ()

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
