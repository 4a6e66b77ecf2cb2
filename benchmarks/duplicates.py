"""Near-identical photos: of planted ones, how many are found, and how many of those found are.

    .venv/bin/python -m benchmarks.duplicates --data ../shared/data

Of a data set 1,500 photos are taken, and of 150 of them the edits that sellers make are added. What
`jobs.find_duplicates` does is done in this process: ten candidates by embedding, then the pixels.
An edit counts as found if its group has its original. A pair counts as false if its photos are
neither an original nor its edits; the data set's own near-identical photos count as false, so the
pairs are listed.

Prints a Markdown table and writes it as JSON.
"""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks.results_file import write_results
from jobs.find_duplicates import FindDuplicates
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.constants import DEFAULT_BACKBONE
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.pixels import prepare_photo
from seer_model.photos.resemblance import SIDE, Searchable, as_grey, resemblance
from seer_model.photos.source import PhotoSource
from seer_model.reviews.neighbours import Neighbourhoods, nearest
from seer_model.tracking.registry import resolve_backbone
from tests.support.edited_photos import edits

DATA_SETS = ("grocery", "clothing")
PHOTOS = 1500
EDITED = 150


def measure(photos: Sequence[Path], backbone: Backbone, seed: int) -> dict[str, Any]:
    """Plant, search, compare, count."""
    rng = np.random.default_rng(seed)
    chosen = [photos[n] for n in rng.choice(len(photos), PHOTOS, replace=False)]
    data, names = [path.read_bytes() for path in chosen], ["original"] * PHOTOS
    original = list(range(PHOTOS))
    for number in range(EDITED):
        for name, edited in edits(Image.open(chosen[number]).convert("RGB")):
            data.append(edited)
            names.append(name)
            original.append(number)
    embedder = PhotoEmbedder.open(backbone, threads=os.cpu_count() or 1)
    vectors = [each.vector for each in embedder.embed(PhotoSource(None, each) for each in data)]
    assert all(vector is not None for vector in vectors)
    pairs = candidates(np.array(vectors, np.float32))
    with ProcessPoolExecutor(os.cpu_count(), initializer=_remember, initargs=(data,)) as pool:
        scores = np.fromiter(pool.map(_score, pairs.tolist(), chunksize=64), np.float64)
    least = FindDuplicates.model_fields["least_score"].default
    found = pairs[scores >= least]
    family = np.array(original)
    true = family[found[:, 0]] == family[found[:, 1]]
    graph = coo_array((np.ones(len(found)), found.T), (len(data), len(data)))
    _, group = connected_components(graph, directed=False)
    kinds = np.array(names)
    is_edit = kinds != "original"
    is_found = group == group[family]
    offered = np.zeros(len(data), np.bool_)
    for one, other in pairs[family[pairs[:, 0]] == family[pairs[:, 1]]]:
        offered[[one, other]] = True
    return {
        "photos": len(data),
        "edits": int(is_edit.sum()),
        "candidates_a_photo": len(pairs) / len(data),
        "offered": float(offered[is_edit].mean()),
        "recall": float(is_found[is_edit].mean()),
        "by_edit": {
            str(kind): float(is_found[kinds == kind].mean())
            for kind in dict.fromkeys(names[PHOTOS:])
        },
        "pairs": len(found),
        "precision": float(true.mean()),
        "false": [[str(chosen[family[n]].name) for n in pair] for pair in found[~true].tolist()],
    }


def candidates(features: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, Any]:
    """Pairs of photos whose embeddings are near, int64, (pairs, 2)."""
    fields = FindDuplicates.model_fields
    where = Neighbourhoods.fit(features, len(features), cell=fields["cell"].default)
    directions = where.directions(features)
    count = fields["neighbours"].default + 1
    positions, cosines = nearest(directions, directions, count)
    one = np.repeat(np.arange(len(features)), count)
    other = positions.ravel()
    near = (other >= 0) & (cosines.ravel() >= fields["least_cosine"].default) & (one != other)
    pairs = np.stack([one, other], axis=1)[near]
    pairs.sort(axis=1)
    return np.unique(pairs, axis=0)


_data: list[bytes] = []


def _remember(data: list[bytes]) -> None:
    _data.extend(data)


@cache
def _searchable(number: int) -> Searchable:
    return Searchable(as_grey(prepare_photo(_data[number], SIDE, PhotoLimits())))


def _score(pair: tuple[int, int]) -> float:
    return resemblance(*map(_searchable, pair))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE)
    parser.add_argument("--only", nargs="*", default=DATA_SETS, choices=DATA_SETS)
    results = Path(__file__).parent / "results" / "duplicates.json"
    parser.add_argument("--output", type=Path, default=results)
    options = parser.parse_args()
    backbone = resolve_backbone(options.backbone)
    rows = {}
    for name in options.only:
        photos = sorted((options.data / name).rglob("*.jpg"))
        rows[name] = measure(photos, backbone, seed=0)
    record = {"backbone": options.backbone, "data": rows, "markdown": as_markdown(rows)}
    write_results(options.output, record)


def as_markdown(rows: dict[str, dict[str, Any]]) -> str:
    """Two tables: the whole, and recall by edit."""
    lines = [
        "| data | photos | edits | candidates a photo | edits among them | recall | pairs found "
        "| precision |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {name} | {row['photos']} | {row['edits']} | {row['candidates_a_photo']:.1f} "
        f"| {row['offered']:.3f} | {row['recall']:.3f} | {row['pairs']} | {row['precision']:.4f} |"
        for name, row in rows.items()
    ]
    kinds = next(iter(rows.values()))["by_edit"]
    lines += ["", f"| data | {' | '.join(kinds)} |", f"|---|{'--:|' * len(kinds)}"]
    lines += [
        f"| {name} | {' | '.join(f'{found:.3f}' for found in row['by_edit'].values())} |"
        for name, row in rows.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
