"""A contact sheet of nearest neighbours, to judge by eye which photos a backbone finds similar."""

from PIL import Image

from jobs.pages.contact_sheet import Tile, draw_contact_sheet
from jobs.pretraining.photo_sample import EmbeddedSample, PhotoSample
from seer_model.photos.fetch import fetch_photo
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.source import PhotoSource
from seer_model.training.pretraining.probe import Neighbours, nearest_neighbours

__all__ = ["draw_neighbours"]

_ROWS = 8
_NEIGHBOURS = 5
_SPARE = 16  # Neighbours that may be of the query's own listing.
_QUERY = "#2f6fd0"
_SAME = "#2e9e5b"
_OTHER = "#e0a100"
_UNKNOWN = "#c9ced6"


def draw_neighbours(
    known: EmbeddedSample, queries: EmbeddedSample, limits: PhotoLimits
) -> Image.Image:
    """Draw one row per query: the query, then the nearest photos of other listings.

    Strips are blue under a query, green under a neighbour of its category, amber under one of
    another category, grey where a category is unknown.

    Args:
        known: The photos to search.
        queries: The photos to search for; a few are chosen, of as many categories as possible.
        limits: Limits on photos.

    Returns:
        An RGB image.
    """
    rows = _choose(queries.photos) if len(known.photos) else []
    if not rows:
        return draw_contact_sheet([])
    found = nearest_neighbours(known.vectors, queries.vectors[rows], _NEIGHBOURS + _SPARE)
    tiles = []
    for place, row in enumerate(rows):
        tiles += _row(queries.photos, row, known.photos, found, place, limits)
    return draw_contact_sheet(tiles, columns=1 + _NEIGHBOURS)


def _choose(queries: PhotoSample) -> list[int]:
    """Choose photos of different listings: the first per category, then the second, and so on."""
    seen: dict[str | None, int] = {}
    listings: set[str] = set()
    ranked = []
    for row, (listing, label) in enumerate(zip(queries.listing_ids, queries.labels, strict=True)):
        if listing not in listings:
            listings.add(listing)
            seen[label] = seen.get(label, 0) + 1
            ranked.append((seen[label], row))
    return [row for _, row in sorted(ranked)[:_ROWS]]


def _row(
    queries: PhotoSample,
    row: int,
    known: PhotoSample,
    found: Neighbours,
    place: int,
    limits: PhotoLimits,
) -> list[Tile]:
    label = queries.labels[row]
    listing = queries.listing_ids[row]
    photo = _read(queries.sources[row], limits)
    tiles = [Tile(photo, _name(label) or "query", f"query {listing}", _QUERY)]
    for similarity, index in zip(found.similarities[place], found.indices[place], strict=True):
        if known.listing_ids[index] != listing and len(tiles) <= _NEIGHBOURS:
            other = known.labels[index]
            colour = _UNKNOWN if None in (label, other) else _SAME if other == label else _OTHER
            caption = f"{similarity:.3f}  {known.listing_ids[index]}"
            tiles.append(Tile(_read(known.sources[index], limits), _name(other), caption, colour))
    nothing = Tile(None, "", "", _UNKNOWN)
    return tiles + [nothing] * (1 + _NEIGHBOURS - len(tiles))


def _name(label: str | None) -> str:
    """The last part of a category's path."""
    return (label or "").rpartition("/")[2]


def _read(source: PhotoSource, limits: PhotoLimits) -> bytes | None:
    try:
        return fetch_photo(source, limits)
    except PhotoRejected:
        return None
