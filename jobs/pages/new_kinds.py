"""The page of new kinds: clusters of unfamiliar listings, with photos, as one HTML file."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.pages.templates import render

__all__ = ["EXAMPLES", "SHOWN", "Cluster", "new_kinds_page"]

SHOWN = 20
"""Clusters on the page; the table has all."""
EXAMPLES = 6
"""Photos of a cluster on the page."""


@dataclass(frozen=True)
class Cluster:
    """Listings that are like each other.

    Attributes:
        number: Its number in the table.
        listings: How many it has.
        nearest: Paths of the known categories that its listings are most like, each with the mean
            of its scores, the best first.
        examples: Small JPEG photos by listing, those nearest to its middle.
    """

    number: int
    listings: int
    nearest: Sequence[tuple[str, float]]
    examples: Mapping[str, bytes]

    @property
    def images(self) -> dict[str, str]:
        """The photos as `data:` URIs, by listing."""
        return {
            listing: "data:image/jpeg;base64," + b64encode(photo).decode("ascii")
            for listing, photo in self.examples.items()
        }


def new_kinds_page(figures: Mapping[str, Any], clusters: Sequence[Cluster]) -> str:
    """Render a self-contained page; all names are escaped, and its policy lets it load nothing.

    Args:
        figures: The report of `jobs.find_new_kinds`.
        clusters: The largest clusters, the largest first.
    """
    return render("new_kinds.html.jinja", **figures, shown=clusters)
