"""The page of a description: photos with their texts, as one HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.pages.templates import jpeg_uri, render

__all__ = ["SHOWN", "DescribedPhoto", "descriptions_page"]

SHOWN = 60
"""Photos on the page; the table has all."""


@dataclass(frozen=True)
class DescribedPhoto:
    """A photo with its texts.

    Attributes:
        listing_id: Its listing.
        image_index: Its number in the manifest.
        texts: By locale.
        statements: What the first text says, as in the table.
        photo: A small JPEG.
    """

    listing_id: str
    image_index: int | None
    texts: Mapping[str, str]
    statements: Sequence[Mapping[str, Any]]
    photo: bytes | None

    @property
    def image(self) -> str | None:
        """The photo as a `data:` URI."""
        return None if self.photo is None else jpeg_uri(self.photo)


def descriptions_page(figures: Mapping[str, Any], photos: Sequence[DescribedPhoto]) -> str:
    """Render a self-contained page; all names and texts are escaped, and it may load nothing.

    Args:
        figures: The report of `jobs.describe_listings`.
        photos: Some of the described ones.
    """
    return render("descriptions.html.jinja", f=figures, shown=photos)
