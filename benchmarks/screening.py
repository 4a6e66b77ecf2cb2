"""Screening: how many edited known photos are found, what is read of texts, and what both cost.

    .venv/bin/python -m benchmarks.screening --data ../shared/data

1,000 photos of each data set are known, and come back in the edits that sellers make. A false match
is a known photo that another photo is taken for; the data sets' own near-identical photos count as
false. For a list of a million, a million hashes drawn at random are added to them, with the same
number of variants. Texts are written on photos of the data sets, and the default rules look for
them; what they find in photos as they are is false, or was in the photo.

Prints Markdown tables and writes them as JSON.
"""

import argparse
import os
import random
import resource
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont

from benchmarks.results_file import write_results
from schemas.known_photos import KNOWN_PHOTOS
from seer_model.backbones.constants import DEFAULT_BACKBONE
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.photos.colours import subject_colours
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.perceptual_hash import HASH_BYTES, PhotoHashes, hash_photo
from seer_model.photos.source import PhotoSource
from seer_model.photos.square import decode_square, load_whole
from seer_model.screener.known_photos import (
    CERTAIN_BITS,
    LIKELY_BITS,
    KnownPhotos,
    variant_hashes,
)
from seer_model.screener.rules import read_rules
from seer_model.screener.text_reader import TextReader
from seer_model.tracking.registry import resolve_backbone
from tests.support.edited_photos import as_jpeg, edits
from tests.support.written_photos import write_on

DATA_SETS = ("grocery", "clothing")
PHOTOS = 1000
LONG_LIST = 1_000_000
SEARCHED_IN_LONG_LIST = 7
WRITTEN = 60
SHARES = (0.025, 0.04, 0.06, 0.08)
AS_THEY_ARE = 250
TEXTS = {
    "telephone": ("0{a} {b}", "+49 {a} {b}", "call {b}", "Tel. {a}/{b}"),
    "email": ("mail{a}@web.de", "shop{a} (at) mail.com", "x{a} at mail dot com"),
    "web address": ("www.item-{a}.de", "shop-{a}.com", "shop{a} dot com"),
    "payment elsewhere": ("PayPal {a}", "pay by bank transfer", "Western Union"),
}
_SIZE = 224


def more_edits(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    """The edits of the tests, and harder ones."""
    yield from edits(image)
    width, height = image.size
    for name, colour in (("black frame of 10 %", "black"), ("grey frame of 10 %", "grey")):
        framed = Image.new("RGB", (round(width * 1.2), round(height * 1.2)), colour)
        framed.paste(image, (round(width * 0.1), round(height * 0.1)))
        yield name, as_jpeg(framed)
    marked = image.convert("RGBA")
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    font = ImageFont.load_default(size=height // 8)
    place = (width * 0.1, height * 0.42)
    ImageDraw.Draw(layer).text(place, "my-shop.example", (255, 255, 255, 150), font=font)
    yield "watermark", as_jpeg(Image.alpha_composite(marked, layer))
    hue = np.asarray(image.convert("HSV")).copy()
    hue[..., 0] += 18
    yield "hue by 25 degrees", as_jpeg(Image.fromarray(hue, "HSV"))
    inside = image.crop(
        tuple(round(s) for s in (width * 0.05, height * 0.05, width * 0.95, height * 0.95))
    )  # type: ignore[arg-type]
    mirrored = inside.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    yield "mirrored, cropped by 5 %", as_jpeg(mirrored)
    off_centre = image.crop((round(width * 0.08), 0, width, round(height * 0.95)))
    yield "cropped at two sides", as_jpeg(off_centre)


def hash_encoded(data: bytes) -> PhotoHashes:
    """Hash a photo as the pipeline does."""
    with decode_square(data, _SIZE, PhotoLimits(), None, hashed=True) as square:
        assert square.hashes is not None
        return square.hashes


def hash_all(
    path: Path,
) -> tuple[list[tuple[str, bytes]], PhotoHashes, list[tuple[str, PhotoHashes]]]:
    """The variants of a known photo, its own hashes, and those of its edits."""
    image = Image.open(path).convert("RGB")
    variants = list(variant_hashes(load_whole(PhotoSource(str(path), None), _SIZE, PhotoLimits())))
    edited = [(name, hash_encoded(data)) for name, data in more_edits(image)]
    return variants, hash_encoded(path.read_bytes()), edited


def as_table(variants: Sequence[Sequence[tuple[str, bytes]]]) -> pa.Table:
    """A list of known photos."""
    rows = [
        (str(number), "known", "block", name, each)
        for number, found in enumerate(variants)
        for name, each in found
    ]
    return pa.table(list(zip(*rows, strict=True)), schema=KNOWN_PHOTOS)


def known_photos(photos: Sequence[Path]) -> dict[str, Any]:
    """Recall by edit, false matches, and the same in a long list."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        every = list(pool.map(hash_all, photos, chunksize=16))
    hashed = [each for each in every if each[0]]
    variants = [found for found, _, _ in hashed]
    known = KnownPhotos(as_table(variants))
    names = [name for name, _ in hashed[0][2]]
    asked = [each for _, _, edited in hashed for _, each in edited]
    owners = [str(number) for number, (_, _, edited) in enumerate(hashed) for _ in edited]
    kinds = np.array([name for _, _, edited in hashed for name, _ in edited])
    # One rule, so that a photo has its best match alone: another known photo's would be false.
    matches = known.find(asked)
    bits = bits_of(matches, owners)
    neighbours = others_within(variants, [own for _, own, _ in hashed])
    fewer = slice(None, None, SEARCHED_IN_LONG_LIST)
    long_list, made_in, seconds, right = search_long_list(variants, asked[fewer])
    return {
        "photos": len(photos),
        "without_hash": len(every) - len(hashed),
        "by_edit": {
            name: {
                "block": float((bits[kinds == name] <= CERTAIN_BITS).mean()),
                "found": float((bits[kinds == name] <= LIKELY_BITS).mean()),
            }
            for name in names
        },
        "pairs": len(hashed) * (len(hashed) - 1),
        "false": neighbours,
        "long_list": {
            "hashes": long_list,
            "made_in_seconds": made_in,
            "ms_a_photo": 1000 * seconds,
            "found": float((bits_of(right, owners[fewer]) <= LIKELY_BITS).mean()),
            "found_in_short_list": float((bits[fewer] <= LIKELY_BITS).mean()),
            "mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        },
    }


def bits_of(matches: Sequence[Sequence[Any]], owners: Sequence[str]) -> np.ndarray[Any, Any]:
    """How many bits the right known photo differs by; 256 where it is not found."""
    return np.array(
        [
            min((match.bits for match in found if match.known_id == owner), default=256)
            for found, owner in zip(matches, owners, strict=True)
        ]
    )


def others_within(
    variants: Sequence[Sequence[tuple[str, bytes]]], own: Sequence[PhotoHashes]
) -> dict[str, Any]:
    """How many other known photos each photo is taken for."""
    known = np.concatenate(
        [np.unpackbits(np.frombuffer(each, np.uint8)) for found in variants for _, each in found]
    )
    known = known.reshape(-1, 8 * HASH_BYTES).astype(np.float32)
    first = np.cumsum([0, *map(len, variants)])[:-1]
    certain, likely, nearest = 0, 0, 256.0
    for number, hashes in enumerate(own):
        best = np.full(len(variants), 256.0)
        for each in filter(None, (hashes.whole, hashes.unframed)):
            asked = np.unpackbits(np.frombuffer(each, np.uint8)).astype(np.float32)
            distance = asked.sum() + known.sum(axis=1) - 2 * known @ asked
            best = np.minimum(best, np.minimum.reduceat(distance, first))
        best[number] = 256
        certain += int((best <= CERTAIN_BITS).sum())
        likely += int((best <= LIKELY_BITS).sum())
        nearest = min(nearest, float(best.min()))
    return {"block": certain, "found": likely, "nearest": nearest}


def search_long_list(
    variants: Sequence[Sequence[tuple[str, bytes]]],
    asked: Sequence[PhotoHashes],
) -> tuple[int, float, float, list[list[Any]]]:
    """Search among a million more; its length, CPU seconds to make it and a photo, matches."""
    table = as_table(variants)
    count = LONG_LIST * len(variants[0])
    drawn = np.random.default_rng(0).integers(0, 256, (count, HASH_BYTES), np.uint8)
    more = pa.table(
        [
            pa.array(np.arange(count) // len(variants[0]) + len(variants)).cast(pa.string()),
            *(
                pa.array([value]).take(pa.array(np.zeros(count, np.int32)))
                for value in ("drawn", "block", "whole")
            ),
            pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(HASH_BYTES), count, [None, pa.py_buffer(drawn)]
            ).cast(pa.binary()),
        ],
        schema=KNOWN_PHOTOS,
    )
    started = process_time()
    known = KnownPhotos(pa.concat_tables([table, more]))
    made_in = process_time() - started
    started = process_time()
    matches = known.find(asked)
    return len(known), made_in, (process_time() - started) / len(asked), matches


def texts(photos: Sequence[Path]) -> dict[str, Any]:
    """What the default rules find of what was written, by size; and what they find without."""
    rng = random.Random(0)
    rules = {rule.name: rule for rule in read_rules(None).text}
    reader = TextReader(threads=1)
    recall: dict[str, dict[str, float]] = {name: {} for name in TEXTS}
    for share in SHARES:
        for name, forms in TEXTS.items():
            hits = 0
            for number in range(WRITTEN):
                text = rng.choice(forms).format(
                    a=rng.randint(100, 999), b=rng.randint(1000000, 9999999)
                )
                with Image.open(rng.choice(photos)) as image:
                    data = write_on(image.convert("RGB"), text, share, number)
                hits += rules[name].find(read(reader, data)) is not None
            recall[name][str(share)] = hits / WRITTEN
    found: dict[str, list[str]] = {name: [] for name in rules}
    chosen = rng.sample(photos, AS_THEY_ARE)
    with_text = 0
    for path in chosen:
        lines = read(reader, path.read_bytes())
        with_text += bool(lines)
        for name, rule in rules.items():
            if (match := rule.find(lines)) is not None:
                found[name].append(match.evidence[:80])
    return {
        "recall": recall,
        "as_they_are": {"photos": len(chosen), "with_text": with_text, "found": found},
    }


def read(reader: TextReader, data: bytes) -> list[Any]:
    """Read an encoded photo as the pipeline does."""
    return reader.read(load_whole(PhotoSource(None, data), reader.short_side, PhotoLimits()))


def costs(photos: Sequence[Path]) -> dict[str, float]:
    """CPU milliseconds a photo of 1280 by 960 pixels, each step by itself."""
    rng = random.Random(1)
    encoded = []
    for path in rng.sample(photos, 60):
        with Image.open(path) as image:
            encoded.append(as_jpeg(image.convert("RGB").resize((1280, 960))))
    embedder = PhotoEmbedder.open(resolve_backbone(DEFAULT_BACKBONE), threads=1)
    pixels = [load_whole(PhotoSource(None, data), _SIZE, PhotoLimits()) for data in encoded]
    reader = TextReader(threads=1)
    steps = {
        "decode and embed": lambda: [*embedder.embed(PhotoSource(None, data) for data in encoded)],
        "hash": lambda: [hash_photo(each) for each in pixels],
        "name colours": lambda: [subject_colours(each[:224, :224]) for each in pixels],
        "read text": lambda: [read(reader, data) for data in encoded],
    }
    found = {}
    for name, step in steps.items():
        step()
        started = process_time()
        step()
        found[name] = 1000 * (process_time() - started) / len(encoded)
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    results = Path(__file__).parent / "results" / "screening.json"
    parser.add_argument("--output", type=Path, default=results)
    options = parser.parse_args()
    chosen: list[Path] = []
    for name in DATA_SETS:
        photos = sorted((options.data / name).rglob("*.jpg"))
        chosen += random.Random(0).sample(photos, PHOTOS)
    record: dict[str, Any] = {"costs": costs(chosen)}
    record["text"] = texts(chosen)
    record["known_photos"] = known_photos(chosen)
    record["markdown"] = as_markdown(record)
    write_results(options.output, record)


def as_markdown(record: dict[str, Any]) -> str:
    """The tables of the docs."""
    known, text, costs = record["known_photos"], record["text"], record["costs"]
    lines = ["| edit | found | block |", "|---|--:|--:|"]
    lines += [
        f"| {name} | {row['found']:.3f} | {row['block']:.3f} |"
        for name, row in known["by_edit"].items()
    ]
    false, pairs, long_list = known["false"], known["pairs"], known["long_list"]
    lines += [
        "",
        f"Of {pairs:,} pairs of other photos, {false['found']} are found and {false['block']} are "
        f"to be blocked; the nearest differ by {false['nearest']:.0f} bits. In a list of "
        f"{long_list['hashes']:,} hashes, {long_list['found']:.4f} of all edits are found "
        f"({long_list['found_in_short_list']:.4f} in the short list), in "
        f"{long_list['ms_a_photo']:.2f} ms a photo and {long_list['mebibytes']:,.0f} MiB, after "
        f"{long_list['made_in_seconds']:.0f} s to open it (CPU time of one core).",
        "",
        f"| text | {' | '.join(f'{share:.1%} of the height' for share in SHARES)} |",
        f"|---|{'--:|' * len(SHARES)}",
    ]
    lines += [
        f"| {name} | {' | '.join(f'{row[str(share)]:.2f}' for share in SHARES)} |"
        for name, row in text["recall"].items()
    ]
    as_they_are = text["as_they_are"]
    found = ", ".join(f"{name} {len(each)}" for name, each in as_they_are["found"].items())
    lines += [
        "",
        f"Of {as_they_are['photos']} photos as they are, {as_they_are['with_text']} have text; "
        f"found: {found}.",
        "",
        "| step | CPU ms a photo | |",
        "|---|--:|--:|",
    ]
    whole = costs["decode and embed"]
    lines += [f"| {name} | {ms:.1f} | {ms / whole:.2f} |" for name, ms in costs.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
