"""Memory of training a head on many photos, from files of embeddings to a calibrated bundle.

    .venv/bin/python -m benchmarks.training_memory

Draws embeddings into files as `train_head` leaves them for itself, reads them, trains for one
epoch, calibrates, and prints the largest memory that the process had until the end of each step.
"""

import argparse
import json
import resource
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measuring import say
from jobs import train_head
from jobs.stages.spool import Spool
from schemas.taxonomy import Category, Taxonomy
from seer_model.backbones.weights import random_backbone
from seer_model.training import fit
from seer_model.training.head import train_head as fit_head

_FILE_PHOTOS = 100_000
_TOPS = 10
_SLICES = pa.map_(pa.string(), pa.string())


def draw_photos(folder: Path, photos: int, classes: int, width: int) -> None:
    """Write files of embeddings, two photos a listing, whose classes can be told apart."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, width), np.float32)
    for first in range(0, photos, _FILE_PHOTOS):
        listings = np.arange(first, min(first + _FILE_PHOTOS, photos)) // 2
        labels = listings % classes
        noise = rng.standard_normal((len(listings), width), np.float32)
        vectors = (centres[labels] + 2 * noise).astype("<f2")
        table = pa.table(
            {
                "listing_id": [f"listing-{i:012}" for i in listings],
                "category_id": [f"class-{i}" for i in labels],
                "split": pa.nulls(len(listings), pa.string()),
                "vector": [vector.tobytes() for vector in vectors],
                "vector_key": rng.integers(0, 2**62, len(listings)),
            }
        )
        pq.write_table(table, folder / f"part-{first:012}.parquet")


def draw_taxonomy(classes: int) -> Taxonomy:
    """A tree of two levels with the classes below."""
    tops = [Category(f"top-{i}", (f"Top {i}",), None) for i in range(_TOPS)]
    leaves = [
        Category(f"class-{i}", (f"Top {i % _TOPS}", f"Class {i}"), f"top-{i % _TOPS}")
        for i in range(classes)
    ]
    return Taxonomy([*tops, *leaves])


def main() -> None:
    """Draw, read, train, calibrate; print seconds and memory as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=int, default=5_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="for the files, 1 KB a photo")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    backbone = random_backbone("regnety_004")
    steps: dict[str, dict[str, float]] = {}

    def done(step: str, started: float) -> None:
        # Linux counts kilobytes, macOS bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        steps[step] = {
            "seconds": round(perf_counter() - started, 1),
            "peak_gb": round(peak / 1e9, 2),
        }
        say(f"{step}: {steps[step]}")

    with tempfile.TemporaryDirectory(prefix="seer-bench-", dir=arguments.folder) as name:
        folder, started = Path(name), perf_counter()
        draw_photos(folder, arguments.photos, arguments.classes, backbone.width)
        done("draw", started)
        started = perf_counter()
        no_slices = pa.table(
            {"listing_id": pa.nulls(0, pa.string()), "slices": pa.nulls(0, _SLICES)}
        )
        train, val = train_head._split(Spool(folder), no_slices, backbone.width)
        done("read", started)
    started = perf_counter()
    fit.train_head = partial(fit_head, max_epochs=1)
    fit.fit_bundle(
        backbone,
        draw_taxonomy(arguments.classes),
        train,
        val,
        target_precision=0.9,
        unseen_share=0.1,
        seed=0,
        origin={},
    )
    done("train for one epoch, and calibrate", started)
    record = {
        "photos": arguments.photos,
        "val_photos": len(val.labels),
        "features": backbone.width,
        "classes": arguments.classes,
        "steps": steps,
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / "training_memory.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
