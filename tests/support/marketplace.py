"""The data of the DAG tests: a manifest of drawn listings, labels, models, categories."""

import os
from collections.abc import Callable
from pathlib import Path

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.categories import check_categories
from seer_model.tracking import registration, registry, runs
from tests.support.decisions import decision, write_decisions

COLOURS = ("warm/red", "warm/yellow", "cold/blue", "cold/green")
TAXONOMY = (
    "category_id,category_path\n"
    + "".join(f"{top},{top.title()}\n" for top in ("warm", "cold"))
    + "".join(f"{name},{name.title().replace('/', ' > ')}\n" for name in COLOURS)
)
SPLITS = {"train": 6, "val": 4, "test": 6}
MODEL = "listing-categorizer"


class Marketplace:
    """The folders of a deployment.

    Attributes:
        folder: Holds all else.
        tracking_uri: MLflow's database.
        gates: The file of promotion gates.
    """

    def __init__(
        self, folder: Path, write_manifest: Callable[..., Path], draw_photo: Callable[..., bytes]
    ) -> None:
        self.folder = folder
        self.tracking_uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.gates = folder / "gates.toml"
        self._write_manifest = write_manifest
        self._draw_photo = draw_photo
        (folder / "taxonomy.csv").write_text(TAXONOMY, encoding="utf-8")

    def add_day(self, ds: str, schema: pa.Schema | None = None) -> None:
        """Add listings of one colour each, and one whose only photo is broken."""
        photos = {name: self._draw_photo(name, 7) for name in COLOURS} | {"broken": b"not a photo"}
        rows = [
            {"listing_id": name, "image_index": 0, "image_bytes": photo}
            for name, photo in photos.items()
        ]
        options = {} if schema is None else {"schema": schema}
        self._write_manifest(self.folder / "manifest", rows, ds, **options)

    def add_labelled(self) -> None:
        """Add labelled listings to train, calibrate and evaluate on."""
        rows = [
            {
                "listing_id": f"{split} {colour} {i}",
                "image_index": 0,
                "image_bytes": self._draw_photo(colour, 100 * place + i),
                "category_id": colour,
                "split": split,
                "concepts": [("first colour", colour == COLOURS[0])],
            }
            for place, (split, count) in enumerate(SPLITS.items())
            for colour in COLOURS
            for i in range(count)
        ]
        self._write_manifest(self.folder / "labelled", rows)

    def add_decisions(self) -> None:
        """Add what people decided: a label that is known, one of a listing of the daily manifest,
        and one of another taxonomy.
        """
        write_decisions(
            self.folder / "labels",
            decision(f"train {COLOURS[0]} 0", category_id=COLOURS[0]),
            decision(COLOURS[1], category_id=COLOURS[1]),
            decision("elsewhere", category_id="aa-1"),
        )

    def add_champion(self, bundle: Path) -> None:
        """Register a bundle, and make it the champion."""
        runs.connect(self.tracking_uri)
        with runs.tracked_run("train_head", {}):
            version = registration.register_bundle(bundle, MODEL)
        registry.move_alias(MODEL, "champion", version)

    def champion(self) -> str | None:
        runs.connect(self.tracking_uri)
        return registry.aliased_version(MODEL, "champion")

    def lock_holder(self, ds: str) -> int | None:
        """Return the process that holds a day's partition, or held it last."""
        lock = self.folder / "categories" / "_locks" / f"ds={ds}.lock"
        words = lock.read_text(encoding="utf-8").split() if lock.exists() else []
        return int(words[words.index("process") + 1]) if "process" in words else None

    def published(self, ds: str) -> str:
        """Check that readers see every listing once; return the run that wrote them."""
        table = pq.read_table(os.path.realpath(self.folder / "categories" / f"ds={ds}"))
        check_categories(table, ds)
        assert sorted(table["listing_id"].to_pylist()) == sorted([*COLOURS, "broken"])
        (run,) = set(table["run_id"].to_pylist())
        return str(run)

    def tracked(self, ds: str) -> dict[str, str]:
        """Return the status of each of the main job's runs on a day, from MLflow."""
        client = mlflow.MlflowClient(self.tracking_uri)
        experiments = [each.experiment_id for each in client.search_experiments()]
        of_day = f"params.ds = '{ds}' and tags.job = 'categorize_listings'"
        runs = client.search_runs(experiments, of_day, order_by=["start_time"])
        return {run.info.run_id: run.info.status for run in runs}
