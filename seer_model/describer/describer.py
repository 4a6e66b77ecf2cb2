"""Describe listings: what is known of their photos in, alternative texts out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas.descriptions import DESCRIPTIONS, StatementKind
from schemas.taxonomy import Taxonomy
from seer_model.describer.grammar import Locale
from seer_model.describer.statements import Statement, photo_statements

__all__ = ["DESCRIBED", "Describer", "Language", "category_names", "load_describer"]

DESCRIBED: pa.Schema = pa.schema(
    [
        DESCRIPTIONS.field(name)
        for name in (
            *("listing_id", "image_index", "locale", "alt_text", "statements", "reject_reason"),
        )
    ]
)
"""What a describer says of a photo; the rest of its row is the run's."""

_FILE = "describer.json"


@dataclass(frozen=True)
class Language:
    """A locale, and what it calls the categories, by id."""

    locale: Locale
    names: Mapping[str, str]


def category_names(taxonomy: Taxonomy, localised: Taxonomy | None) -> dict[str, str]:
    """What categories are called: by a localised taxonomy, else as their nearest ancestor in it.

    Args:
        taxonomy: The model's.
        localised: The same tree with names in the language; None for the model's own names.

    Returns:
        Names by id; without categories that neither have a name nor an ancestor with one.
    """
    if localised is None:
        return {category.category_id: category.name for category in taxonomy}
    names = {}
    for category in taxonomy:
        way_up = (category.category_id, *reversed(taxonomy.ancestors(category.category_id)))
        named = next((each for each in way_up if each in localised), None)
        if named is not None:
            names[category.category_id] = localised[named].name
    return names


@dataclass(frozen=True)
class Describer:
    """Writes texts.

    Attributes:
        languages: One text a photo in each.
        applies: Of each attribute that is limited to some categories, the ids of those and of all
            below them.
    """

    languages: Sequence[Language]
    applies: Mapping[str, Sequence[str]]

    def rows(self, listings: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        """Describe the photos of listings; returns `DESCRIBED`.

        Args:
            listings: `listing_id`; `category_id` and `score`, null unless one was assigned;
                `attributes`, each with `name`, `value` and `score`; and `photos`, each with
                `image_index`, `reject_reason`, and `colours` and `text` where they were read.
        """
        rows = []
        for listing in listings:
            category = None
            if listing["category_id"] is not None:
                score = listing["score"]
                category = Statement(StatementKind.CATEGORY, listing["category_id"], score)
            attributes = [
                Statement(StatementKind.ATTRIBUTE, f"{each['name']}={each['value']}", each["score"])
                for each in sorted(listing["attributes"], key=lambda each: str(each["name"]))
                if self._applies(each["name"], listing["category_id"])
            ]
            photos = sorted(listing["photos"], key=lambda photo: photo["image_index"] or 0)
            readable = [photo for photo in photos if photo["reject_reason"] is None]
            for place, photo in enumerate(readable, start=1):
                known = photo_statements(category, attributes, photo, place, len(readable))
                rows += [self._row(listing, photo, each, known) for each in self.languages]
            rows += [
                self._row(listing, photo, each, ())
                for photo in photos
                if photo["reject_reason"] is not None
                for each in self.languages
            ]
        return pa.RecordBatch.from_pylist(rows, schema=DESCRIBED)

    def _applies(self, attribute: str, category: str | None) -> bool:
        return attribute not in self.applies or category in self.applies[attribute]

    def _row(
        self,
        listing: Mapping[str, Any],
        photo: Mapping[str, Any],
        language: Language,
        known: Sequence[Statement],
    ) -> dict[str, Any]:
        said = language.locale.describe(known, language.names)
        return {
            "listing_id": listing["listing_id"],
            "image_index": photo["image_index"],
            "locale": language.locale.language,
            "alt_text": said.text,
            "statements": [each._asdict() for each in said.statements],
            "reject_reason": photo["reject_reason"],
        }

    def save(self, folder: Path) -> None:
        """Write what `load_describer` reads into a new folder."""
        folder.mkdir(parents=True)
        languages = [[each.locale.model_dump(), dict(each.names)] for each in self.languages]
        record = {"languages": languages, "applies": dict(self.applies)}
        (folder / _FILE).write_text(json.dumps(record), encoding="utf-8")


def load_describer(folder: Path) -> Describer:
    """Open a describer's folder."""
    record = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    languages = [
        Language(Locale.model_validate(locale), names) for locale, names in record["languages"]
    ]
    return Describer(languages, record["applies"])
