"""The page of a screening: the listings with findings, each with its photo, as one HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.pages.templates import jpeg_uri, render

__all__ = ["SHOWN", "ScreenedListing", "screening_page"]

SHOWN = 60
"""Listings on the page; the table has all."""


@dataclass(frozen=True)
class ScreenedListing:
    """A listing with findings.

    Attributes:
        listing_id: Which one.
        action: What to do with it.
        findings: As in the table.
        photo: A small JPEG of its strictest finding's photo, blurred if that is to be blocked.
    """

    listing_id: str
    action: str
    findings: Sequence[Mapping[str, Any]]
    photo: bytes | None

    @property
    def image(self) -> str | None:
        """The photo as a `data:` URI."""
        return None if self.photo is None else jpeg_uri(self.photo)


def screening_page(figures: Mapping[str, Any], listings: Sequence[ScreenedListing]) -> str:
    """Render a self-contained page; all names and texts are escaped, and it may load nothing.

    Args:
        figures: The report of `jobs.screen_listings`.
        listings: The strictest ones.
    """
    return render("screening.html.jinja", **figures, shown=listings)
