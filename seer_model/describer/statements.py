"""What is known of a photo surely enough to be said, each statement above a threshold.

Categories and attributes have the calibrated thresholds of their models. Those of colours and texts
are below, chosen by `benchmarks.descriptions` and `benchmarks.colours`.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from schemas.descriptions import StatementKind
from seer_model.screener.text_patterns import LANGUAGES, Pattern, find_pattern, normalise

__all__ = ["LEAST_COLOUR_SHARE", "LEAST_TEXT_SCORE", "Statement", "photo_statements"]

LEAST_COLOUR_SHARE = 0.4
"""Of the subject, that has the main colour. Second colours are right in half of the photos only,
whatever their share, so nothing is said of them."""

LEAST_TEXT_SCORE = 0.9
"""How sure the reader must be of a line."""
_LEAST_TEXT_SHARE = 0.004
"""Of the photo's area. What is smaller is printed on the goods, and is not what a photo says."""
_MOST_TEXTS, _LONGEST_LINE = 2, 40
_LEAST_LETTERS = 3


class Statement(NamedTuple):
    """Something known of a photo, as in `schemas.descriptions`.

    Attributes:
        kind: What it is about.
        value: What is known.
        score: How surely; of a colour its share. None if a person said so.
    """

    kind: StatementKind
    value: str
    score: float | None


def photo_statements(
    category: Statement | None,
    attributes: Iterable[Statement],
    photo: Mapping[str, Any],
    place: int,
    photos: int,
) -> list[Statement]:
    """All that is known of a photo, the most important first.

    Args:
        category: The listing's.
        attributes: The listing's.
        photo: `colours` and `text` as in `schemas.embeddings`, null or missing where unread.
        place: The photo's number among the readable ones of its listing, from 1.
        photos: How many those are.
    """
    found = [category] if category is not None else []
    colours = (photo.get("colours") or {}).get("colours") or []
    found += [
        Statement(StatementKind.COLOUR, colour["name"], colour["share"])
        for colour in colours[:1]
        if colour["share"] >= LEAST_COLOUR_SHARE
    ]
    found += attributes
    found += _texts((photo.get("text") or {}).get("lines") or [])
    if photos > 1:
        found.append(Statement(StatementKind.POSITION, f"{place}/{photos}", 1.0))
    return found


def _texts(lines: Sequence[Mapping[str, Any]]) -> list[Statement]:
    """The largest lines that are read surely, from top to bottom."""
    # Somebody's telephone number is not read aloud to everybody.
    is_private = any(
        find_pattern(normalise(" ".join(line["line"] for line in lines)), pattern, LANGUAGES)
        for pattern in (Pattern.TELEPHONE, Pattern.EMAIL, Pattern.WEB_ADDRESS)
    )
    if is_private:
        return []
    sure = [
        (number, line, _clean(line["line"]))
        for number, line in enumerate(lines)
        if line["score"] >= LEAST_TEXT_SCORE and line["share"] >= _LEAST_TEXT_SHARE
    ]
    readable = [
        each
        for each in sure
        if len(each[2]) <= _LONGEST_LINE and len(re.findall(r"\w", each[2])) >= _LEAST_LETTERS
    ]
    largest = sorted(readable, key=lambda each: -each[1]["share"])[:_MOST_TEXTS]
    return [Statement(StatementKind.TEXT, text, line["score"]) for _, line, text in sorted(largest)]


def _clean(line: str) -> str:
    """A line without quotes, controls and marks of direction, in single blanks."""
    plain = "".join(
        letter if letter.isprintable() and letter not in '"“”„«»' else " "
        for letter in unicodedata.normalize("NFC", line)
    )
    return " ".join(plain.split())
