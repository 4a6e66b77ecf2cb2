"""A folder of sample listings: photos, some of them broken, their labels and a taxonomy."""

import csv
import io
import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from demo.samples.products import KINDS, NEW_KIND, Kind
from demo.samples.scenes import draw_scene
from demo.samples.translations import TRANSLATIONS
from schemas.errors import SettingsError

__all__ = ["SampleSummary", "draw_sample_listings"]

_FEWEST_LISTINGS = 6
_LISTINGS_PER_KIND = 3
_FLAWED_SHARE = 0.04
_NEW_KIND_SHARE = 0.02
_UNUSED_CATEGORIES = (
    ("Clothing", "Garments", "Coat"),
    ("Electronics", "Phones", "Tablet"),
    ("Home", "Kitchen", "Frying pan"),
    ("Leisure", "Reading", "Magazine"),
)
_FAULTS = ("truncated.jpg", "empty.jpg", "text.jpg", "html.png", "missing.jpg")
"""Faults of broken photos, each with the suffix of its file."""

_WRITTEN = ("Call 0171 2345678", "SALE")
_WRITTEN_EVERY = 12
"""One new listing in so many has something written into its first photo."""

_TEXT = b"Upload failed: connection reset by peer. Please try again later.\n"
_HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"
_ORIENTATION_TAG = 0x0112
_STORED_AS = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
"""Transposition that stores an upright picture under an EXIF orientation."""


@dataclass(frozen=True)
class SampleSummary:
    """A drawn sample: counts and paths.

    Attributes:
        listings: Number of listings.
        photos: Number of photos that `listings_csv` names, broken ones included.
        broken: Number of photos that are missing or cannot be decoded.
        kinds: Number of categories that have listings.
        images: The folder of the photos.
        removed: A folder with a photo of a new listing, smaller and compressed: one that was
            taken down on another day.
        listings_csv: One row a photo.
        taxonomy_csv: One row a category.
    """

    listings: int
    photos: int
    broken: int
    kinds: int
    images: Path
    removed: Path
    listings_csv: Path
    taxonomy_csv: Path


@dataclass(frozen=True)
class _Listing:
    """One listing; `faults` has for each photo None or one of `_FAULTS`.

    `written` is what the seller wrote into the first photo, if anything.
    """

    listing_id: str
    kind: Kind
    split: str
    faults: tuple[str | None, ...]
    written: str | None


def draw_sample_listings(
    folder: Path,
    count: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    processes: int = 1,
) -> SampleSummary:
    """Draw listings of one to four photos each, and write their CSV and their taxonomy.

    About half of the listings are in the split `train`, 30 % in `val` and 20 % in `new`; every kind
    of product is in all three, but for one that only a few listings of `new` show. A few photos of
    `train` and `new` are broken, and up to two listings of `new` have broken photos only. In one
    environment a seed always gives the same bytes, whatever the number of processes.

    Args:
        folder: Where to write `images/`, `removed/`, `listings.csv`, and `taxonomy.csv` with its
            translations.
        count: Number of listings, at least 6; below 48 they show fewer kinds of product.
        seed: Which sample to draw.
        progress: Called after each listing with the listings drawn so far and `count`.
        processes: Processes that draw; with 1 it is done in this one.

    Returns:
        What was drawn, and where it is.

    Raises:
        SettingsError: `count` is too small.
    """
    if count < _FEWEST_LISTINGS:
        raise SettingsError(
            f"{count} sample listings are too few to split: ask for at least {_FEWEST_LISTINGS}"
        )
    listings = _plan(count, np.random.default_rng(seed))
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    seeds = [[seed, number] for number in range(count)]
    rows: list[Sequence[object]] = []
    with _mapping(processes) as mapped:
        drawn = mapped(partial(_draw_listing, images), listings, seeds)
        for done, (listing, names) in enumerate(zip(listings, drawn, strict=True), start=1):
            category_id = _category_id(listing.kind.category_path)
            for index, name in enumerate(names):
                path = f"{images.name}/{name}"
                rows.append((listing.listing_id, index, path, category_id, listing.split))
            if progress is not None:
                progress(done, count)
    summary = SampleSummary(
        listings=count,
        photos=len(rows),
        broken=sum(fault is not None for listing in listings for fault in listing.faults),
        kinds=len({listing.kind for listing in listings}),
        images=images,
        removed=_remove(images, listings, folder / "removed"),
        listings_csv=folder / "listings.csv",
        taxonomy_csv=folder / "taxonomy.csv",
    )
    header = ("listing_id", "image_index", "path", "category_id", "split")
    _write_csv(summary.listings_csv, header, rows)
    taxonomy = ("category_id", "category_path")
    _write_csv(summary.taxonomy_csv, taxonomy, _taxonomy())
    for language, translation in TRANSLATIONS.items():
        _write_csv(folder / f"taxonomy_{language}.csv", taxonomy, _taxonomy(translation))
    return summary


@contextmanager
def _mapping(processes: int) -> Iterator[Callable[..., Iterator[list[str]]]]:
    """Give a `map` that runs in this process, or in several."""
    if processes == 1:
        yield map
        return
    # Spawned, not forked: the demo has threads of other libraries by now.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        yield partial(pool.map, chunksize=4)


def _plan(count: int, rng: np.random.Generator) -> list[_Listing]:
    """Choose kind, split and broken photos of every listing, in shuffled order."""
    kinds = KINDS[: count // _LISTINGS_PER_KIND]
    # A few listings of a kind that nobody has labelled yet, where all others have enough.
    spare = count - _LISTINGS_PER_KIND * len(kinds)
    places = [(NEW_KIND, "new")] * min(spare, round(_NEW_KIND_SHARE * count))
    taught = count - len(places)
    for position, kind in enumerate(kinds):
        share = len(range(position, taught, len(kinds)))
        val, new = max(1, round(share * 0.3)), max(1, round(share * 0.2))
        splits = ["train"] * (share - val - new) + ["val"] * val + ["new"] * new
        places += [(kind, split) for split in splits]
    places = [places[place] for place in rng.permutation(count)]
    photos = rng.choice([1, 2, 3, 4], size=count, p=[0.2, 0.35, 0.25, 0.2]).tolist()
    faults = _plan_faults([split for _, split in places], photos, rng)
    of_new = [number for number, (_, split) in enumerate(places) if split == "new"]
    written = dict(zip(of_new[_WRITTEN_EVERY // 2 :: _WRITTEN_EVERY], itertools.cycle(_WRITTEN)))
    return [
        _Listing(f"sample-{number:05}", kind, split, tuple(faults[number]), written.get(number))
        for number, (kind, split) in enumerate(places)
    ]


def _plan_faults(
    splits: Sequence[str], photos: Sequence[int], rng: np.random.Generator
) -> list[list[str | None]]:
    """Choose the broken photos: all of up to two new listings, single ones elsewhere."""
    new = [number for number, split in enumerate(splits) if split == "new"]
    rejected = new[: min(2, len(new) // 3)]
    candidates = [
        number
        for number, split in enumerate(splits)
        if split != "val" and photos[number] > 1 and number not in rejected
    ]
    flawed = rng.permutation(candidates)[: round(_FLAWED_SHARE * sum(photos))].tolist()
    kinds_of_fault = itertools.cycle(_FAULTS)
    faults: list[list[str | None]] = [[None] * shots for shots in photos]
    for number in rejected:
        faults[number] = [next(kinds_of_fault) for _ in range(photos[number])]
    for number in flawed:
        faults[number][int(rng.integers(photos[number]))] = next(kinds_of_fault)
    return faults


def _draw_listing(images: Path, listing: _Listing, seed: Sequence[int]) -> list[str]:
    """Write the photos of one listing; returns their file names."""
    rng = np.random.default_rng(seed)
    product = int(rng.integers(2**31))
    names = []
    content: bytes | None
    for index, fault in enumerate(listing.faults):
        if fault is None:
            photo = draw_scene(listing.kind, product, rng)
            if listing.written is not None and index == 0:
                _write_on(photo, listing.written)
            ending, content = _encoded(photo, rng)
        else:
            ending, content = fault.rsplit(".")[1], _broken(fault, listing.kind, product, rng)
        path = images / f"{listing.listing_id}-{index}.{ending}"
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content)
        names.append(path.name)
    return names


def _write_on(photo: Image.Image, text: str) -> None:
    """Write across the lower part of a photo, as a seller's app does."""
    font = ImageFont.load_default(size=max(8, photo.height // 11))
    draw = ImageDraw.Draw(photo)
    left = (photo.width - draw.textlength(text, font)) / 2
    place = (left, photo.height * 0.78)
    draw.text(place, text, "white", font, stroke_width=photo.height // 100, stroke_fill="black")


def _remove(images: Path, listings: Sequence[_Listing], folder: Path) -> Path:
    """Keep a smaller copy of a new listing's photo, as if it had been taken down before."""
    folder.mkdir(exist_ok=True)
    for listing in listings:
        if listing.split == "new" and listing.written is None and listing.faults[0] is None:
            (path,) = images.glob(f"{listing.listing_id}-0.*")
            with Image.open(path) as photo:
                smaller = ImageOps.exif_transpose(photo).convert("RGB").reduce(2)
            smaller.save(folder / "removed.jpg", quality=40)
            break
    return folder


def _encoded(photo: Image.Image, rng: np.random.Generator) -> tuple[str, bytes]:
    """Encode a photo, mostly as JPEG, some with an EXIF orientation; returns suffix and bytes."""
    file = io.BytesIO()
    ending = str(rng.choice(["jpg", "webp", "png"], p=[0.86, 0.08, 0.06]))
    if ending == "png":
        photo.save(file, "PNG", compress_level=1)
    elif ending == "webp":
        photo.save(file, "WEBP", quality=int(rng.integers(40, 90)), method=1)
    else:
        exif = Image.Exif()
        if rng.random() < 0.2:
            orientation = int(rng.choice(list(_STORED_AS)))
            exif[_ORIENTATION_TAG] = orientation
            photo = photo.transpose(_STORED_AS[orientation])
        photo.save(file, "JPEG", quality=int(rng.integers(30, 93)), exif=exif)
    return ending, file.getvalue()


def _broken(fault: str, kind: Kind, product: int, rng: np.random.Generator) -> bytes | None:
    """Make the bytes of a photo that cannot be used; None for no file at all."""
    if fault == "truncated.jpg":
        file = io.BytesIO()
        draw_scene(kind, product, rng).save(file, "JPEG", quality=85)
        whole = file.getvalue()
        return whole[: round(len(whole) * rng.uniform(0.3, 0.7))]
    return {"empty.jpg": b"", "text.jpg": _TEXT, "html.png": _HTML}.get(fault)


def _category_id(path: Sequence[str]) -> str:
    return "/".join(name.lower().replace(" ", "-") for name in path)


def _taxonomy(names: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """List every category, parents first: id and path, in English or by other names."""
    leaves = [*(kind.category_path for kind in (*KINDS, NEW_KIND)), *_UNUSED_CATEGORIES]
    paths = {leaf[:depth] for leaf in leaves for depth in range(1, len(leaf) + 1)}
    called = names or {name: name for path in paths for name in path}
    return [(_category_id(p), " > ".join(called[name] for name in p)) for p in sorted(paths)]


def _write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
