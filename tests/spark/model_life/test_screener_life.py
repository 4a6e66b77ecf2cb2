"""A screener's life: trained, evaluated, promoted, used; and a new concept from stored vectors."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest
from mlflow import MlflowClient

from jobs import evaluate_challenger, promote_challenger, screen_listings, train_screener
from seer_model.evaluation.gates import read_gates
from tests.support.embedding_rows import error_line
from tests.support.manifest_rows import DS, DrawPhoto, WriteManifest, row
from tests.support.tracking_database import new_database

pytestmark = pytest.mark.spark

COLOURS = ("warm/red", "warm/yellow", "cold/blue", "cold/green")
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def moderated(
    tmp_path_factory: pytest.TempPathFactory, write_manifest: WriteManifest, draw_photo: DrawPhoto
) -> Path:
    """Listings of two photos, the second of which may be red, which the manifest labels."""
    rows = []
    for split, count in (("train", 24), ("test", 24)):
        for number in range(count):
            red = number % 3 == 0
            for index in (0, 1):
                colour = "warm/red" if red and index else COLOURS[1 + number % 3]
                rows.append(
                    row(
                        f"{split}-{number:02}",
                        index,
                        image_bytes=draw_photo(colour, seed=1000 * (split == "test") + number),
                        split=split,
                        concepts=[("red", colour == "warm/red"), ("<b>warm</b>", None)],
                    )
                )
    rows.append(row("never moderated", image_bytes=draw_photo("cold/blue", seed=99)))
    return write_manifest(tmp_path_factory.mktemp("moderated"), rows)


@pytest.fixture
def run(moderated: Path, bundle_folder: Path, tmp_path: Path) -> Run:
    """Runs a job in this process and gives its report; `code` is the exit code expected."""
    uri = new_database(tmp_path)

    def run_job(job: Any, *flags: str, code: int = 0) -> dict[str, Any]:
        argv = ["--tracking-uri", uri, "--report", str(tmp_path / "report.json")]
        if job is not promote_challenger:
            argv += ["--manifest", str(moderated), "--embeddings", str(tmp_path / "embeddings")]
        if job is train_screener:
            argv += ["--backbone", str(bundle_folder / "backbone"), "--target-recall", "0.7"]
        assert job.main([*argv, *flags]) == code
        return json.loads((tmp_path / "report.json").read_text("utf-8")) if code == 0 else {}

    return run_job


@pytest.fixture
def gates(tmp_path: Path) -> Path:
    """The package's, for fewer labels."""
    text = read_gates(None).model_dump(exclude_none=True)
    text["data"]["min_listings"] = 20
    text["concepts"] |= {"min_with_it": 8, "max_below_recall": 0.0}
    path = tmp_path / "gates.toml"
    path.write_text(
        "\n".join(
            f"[{section}]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in values.items())
            for section, values in text.items()
        ),
        encoding="utf-8",
    )
    return path


def write_labels(path: Path, *lines: tuple[object, ...]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("Listing ID", "image_index", "concept", "value"), *lines])
    return path


def test_a_screener_is_trained_evaluated_promoted_and_used(
    run: Run, gates: Path, moderated: Path, tmp_path: Path, draw_photo: DrawPhoto
) -> None:
    trained = run(train_screener)
    assert (trained["version"], trained["model"]) == ("1", "models:/listing-screener/1")
    assert trained["labelled_listings"] == {"test": 24, "train": 24}
    red = trained["concepts"]["red"]
    assert (red["listings"], red["with_it"], red["calibrated_on"]) == (24, 8, "cross-fitting")
    assert red["average_precision"] > 0.8
    assert trained["photos_embedded"] == 48
    # Nobody said of any photo whether it shows this.
    assert set(trained["concepts"]) == {"red"}

    evaluated = run(evaluate_challenger, "--challenger", "models:/listing-screener/1")
    assert evaluated["challenger"]["red"]["with_it"] == 8
    assert evaluated["challenger"]["red"]["recall"] >= 0.7
    promoted = run(
        promote_challenger,
        *("--model-name", "listing-screener", "--version", "1"),
        *("--gates", str(gates), "--acknowledge-licence"),
    )
    assert promoted["promoted"]
    assert [gate["gate"] for gate in promoted["gates"]] == [
        *("licence", "evaluation", "splits", "listings", "age"),
        *("labels", "recall", "block_precision"),
    ]

    # Without rules for text, the vectors are all that is needed.
    (tmp_path / "rules.toml").write_text("", encoding="utf-8")
    screened = run(
        screen_listings,
        *("--rules", str(tmp_path / "rules.toml")),
        *("--ds", DS, "--output", str(tmp_path / "screening")),
        *("--model", "models:/listing-screener@champion"),
    )
    assert screened["photos_embedded"] == 1, "all others are in the store"
    found = ds.dataset(tmp_path / "screening" / f"ds={DS}").to_table().to_pylist()
    by_id = {each["listing_id"]: each for each in found}
    assert {(each["screener_name"], each["screener_version"]) for each in found} == {
        ("listing-screener", "1")
    }
    right = [
        bool(by_id[f"test-{number:02}"]["findings"]) == (number % 3 == 0) for number in range(24)
    ]
    assert np.mean(right) > 0.8
    (finding, *_) = by_id["test-00"]["findings"]
    assert (finding["rule"], finding["kind"], finding["image_index"]) == ("red", "concept", 1)
    assert finding["score"] >= red["review_at"]

    # The registered version says the same.
    model = mlflow.pyfunc.load_model("models:/listing-screener/1")
    frame = pd.DataFrame(
        {
            "listing_id": ["test-00"] * 2 + ["no photo"],
            "image_bytes": [
                draw_photo("warm/yellow", seed=1000),
                draw_photo("warm/red", seed=1000),
                b"none",
            ],
        }
    )
    served = model.predict(frame)
    assert served["listing_id"].tolist() == ["test-00", "no photo"]
    assert served["findings"][0][0]["score"] == pytest.approx(finding["score"], abs=1e-3)
    assert served["photos_rejected"].tolist() == [0, 1]
    assert "## Concepts" in MlflowClient().get_model_version("listing-screener", "1").description


def test_a_new_concept_takes_no_photo_and_must_not_lose_an_old_one(
    run: Run,
    gates: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(train_screener)
    labels = write_labels(
        tmp_path / "labels.csv",
        # The whole listing's, but of one photo; and listings that are not there.
        *((f"{s}-{n:02}", "", "blue", n % 3 == 1) for s in ("train", "test") for n in range(24)),
        ("train-01", 0, "blue", "no"),
        ("train-02", 0, "red", "true"),
        ("gone", "", "blue", "yes"),
        ("train-00", 7, "blue", "yes"),
    )
    trained = run(train_screener, "--labels", str(labels))
    assert trained["photos_embedded"] == 0
    assert trained["labels_without_photo"] == 2
    assert set(trained["concepts"]) == {"blue", "red"}
    # Photo 0 of train-02 counts as red, too, as the CSV says.
    assert trained["concepts"]["red"]["with_it"] == 9
    assert "2 labels are of photos that the manifest lacks" in caplog.text

    champion = ("--champion", "models:/listing-screener@champion")
    flags = ("--model-name", "listing-screener", "--gates", str(gates), "--acknowledge-licence")
    run(promote_challenger, *flags, "--version", "2", "--without-evaluation")
    evaluated = run(
        evaluate_challenger,
        *("--challenger", "models:/listing-screener/1", *champion, "--labels", str(labels)),
    )
    assert evaluated["concepts_missing"] == ["blue"]
    capsys.readouterr()
    run(promote_challenger, *flags, "--version", "1", code=4)
    assert "concepts: 1 missing: blue" in error_line(capsys)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("train-00", 0, "red", "perhaps"), "line 2: value 'perhaps' is neither true nor false"),
        (("train-00", "first", "red", "yes"), "line 2: image_index 'first' is not a number"),
        (("train-00", 0, "", "yes"), "line 2: listing_id or concept is empty"),
    ],
)
def test_mistakes_in_labels_are_said_in_one_line(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    line: tuple[object, ...],
    said: str,
) -> None:
    labels = write_labels(tmp_path / "labels.csv", line)
    run(train_screener, "--labels", str(labels), code=3)
    assert said in error_line(capsys)


def test_a_screener_is_no_categorizer(
    run: Run, bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--ds", DS, "--output", str(tmp_path / "screening"))
    run(screen_listings, *flags, "--model", str(bundle_folder), code=2)
    assert "is a categorizer's model bundle, not a screener" in error_line(capsys)
    both = ("--model", str(bundle_folder), "--backbone", "lite:0")
    run(screen_listings, *flags, *both, code=2)
    assert "--backbone: not with --model" in error_line(capsys)
