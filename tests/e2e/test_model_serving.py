"""A registered model served over HTTP, and loaded in an environment made from its requirements."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pytest
import yaml

from schemas.categories import Decision
from schemas.taxonomy import Category, Taxonomy
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.weights import random_backbone
from seer_model.categorizer.bundle import Bundle, save_bundle
from seer_model.categorizer.categorizer import Categorizer
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.thresholds import Calibration
from seer_model.linear_head import LinearHead
from seer_model.photos.source import PhotoSource
from seer_model.tracking import registration, runs
from tests.support.paths import ROOT
from tests.support.serving import TIMEOUT_S, Row, Server, as_json, as_served, served
from tests.support.tracking_database import new_database

pytestmark = pytest.mark.slow

UV = ROOT / ".uv" / "bin" / "uv"
BROKEN = b"<!DOCTYPE html><html><body>404</body></html>"


class Registered(NamedTuple):
    """A model version, and a categorizer with the same bundle to compare it with."""

    uri: str
    tracking_uri: str
    categorizer: Categorizer

    def score(self, rows: list[Row]) -> list[dict[str, Any]]:
        """Score in this process, in the form of a server's answer."""
        return as_served(
            self.categorizer.categorize(
                [row["listing_id"] for row in rows],
                [row["image_index"] for row in rows],
                [PhotoSource(None, row["image_bytes"]) for row in rows],
            )
        )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    folder = tmp_path_factory.mktemp("registered")
    names = {"a": ("Apparel",), "a-1": ("Apparel", "Shoes"), "a-2": ("Apparel", "Hats")}
    names |= {"f": ("Furniture",), "f-1": ("Furniture", "Chairs")}
    parents = {path: name for name, path in names.items()}
    categories = [Category(name, path, parents.get(path[:-1])) for name, path in names.items()]
    tree = ClassTree(Taxonomy(categories, "2026-01"), ["a-1", "a-2", "f-1"])
    backbone = random_backbone("regnety_002", image_size=64)
    weight = np.random.default_rng(0).normal(0, 1, (3, backbone.width)).astype(np.float32)
    head = LinearHead(weight, np.zeros(3, np.float32))
    bundle = save_bundle(
        Bundle(backbone, head, tree, Calibration(1.0, (None, 0.6), 0.8)), folder / "bundle"
    )
    tracking_uri = runs.connect(new_database(folder))
    with runs.tracked_run("test", {}):
        version = registration.register_bundle(folder / "bundle", "served")
    categorizer = Categorizer(bundle, PhotoEmbedder.open(backbone))
    return Registered(f"models:/served/{version}", tracking_uri, categorizer)


@pytest.fixture(scope="module")
def server(model: Registered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(model.uri, model.tracking_uri, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def rows(photos: list[bytes]) -> list[Row]:
    """Listings of up to three photos; one has a broken photo among them, one only a broken one."""
    sent = [
        {"listing_id": f"listing-{n % 10}", "image_index": n // 10, "image_bytes": photo}
        for n, photo in enumerate(photos)
    ]
    sent[12] |= {"image_bytes": BROKEN}
    return [*sent, {"listing_id": "broken", "image_index": 0, "image_bytes": BROKEN}]


def test_a_photo_gets_a_category(server: Server, model: Registered, rows: list[Row]) -> None:
    (category,) = server.score(rows[:1])
    assert category["decision"] in {"assigned", "needs_review"}
    assert len(category["candidates"]) == 3
    assert category["score"] > 0
    assert [category] == model.score(rows[:1])


def test_photos_of_many_listings(server: Server, model: Registered, rows: list[Row]) -> None:
    categories = {row["listing_id"]: row for row in server.score(rows)}
    assert list(categories.values()) == model.score(rows)
    assert len(categories) == 11
    assert {row["decision"] for row in categories.values()} == set(Decision)
    assert len({row["score"] for row in categories.values()}) == 11
    assert categories["listing-2"]["images_used"] == 2
    assert categories["listing-2"]["image_rejects"] == {"1": "not_an_image"}
    broken = categories["broken"]
    assert (broken["decision"], broken["reject_reason"]) == ("rejected", "not_an_image")
    assert (broken["score"], broken["category_id"], broken["candidates"]) == (None, None, [])


def test_the_serving_example_of_the_model_works(server: Server, model: Registered) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(model.uri))
    example = json.loads((folder / "serving_input_example.json").read_text(encoding="utf-8"))
    assert "dataframe_split" in example
    (category,) = server.post(example).predictions
    assert (category["listing_id"], category["images_used"]) == ("listing-1", 1)


def test_optional_and_extra_columns(server: Server, rows: list[Row]) -> None:
    sent = [row for row in rows if row["listing_id"] in ("listing-2", "listing-3")]
    bare = [{k: v for k, v in row.items() if k != "image_index"} for row in sent]
    assert server.score(bare) == server.score(sent)
    assert server.score([{**row, "colour": "red"} for row in sent]) == server.score(sent)
    nothing = {"columns": ["listing_id", "image_bytes"], "data": []}
    assert server.post({"dataframe_split": nothing}).predictions == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image_bytes": b"photo"}, "missing inputs ['listing_id']"),
        ({"listing_id": "a"}, "neither a column image_bytes nor a column image_uri"),
        ({"listing_id": None, "image_bytes": b"photo"}, "row 0: listing_id is missing"),
        ({"listing_id": 7, "image_bytes": b"photo"}, "row 0: listing_id is of type int, not str"),
        ({"listing_id": "a", "image_bytes": "a"}, "row 0: image_bytes is not base64"),
        ({"listing_id": "a", "image_bytes": b"photo", "image_index": "first"}, "image_index"),
    ],
)
def test_bad_requests_get_status_400(server: Server, row: Row, message: str) -> None:
    status, content = server.post({"dataframe_records": as_json([row])})
    assert status == 400
    assert message in content["message"]
    assert "Traceback" not in json.dumps(content)


def test_uris_are_not_read_for_a_client(
    server: Server, photos: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(photos[0])
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        Thread(target=web.serve_forever).start()
        for uri in (
            str(tmp_path / "photo.jpg"),
            (tmp_path / "photo.jpg").as_uri(),
            f"http://127.0.0.1:{web.server_port}/photo.jpg",
        ):
            row = {"listing_id": "a", "image_uri": uri}
            status, content = server.post({"dataframe_records": [row]})
            assert status == 400
            assert "this model reads no URIs; send image_bytes" in content["message"]
        web.shutdown()
    assert asked == []


def test_concurrent_requests(server: Server, model: Registered, photos: list[bytes]) -> None:
    requests: list[list[Row]] = [
        [{"listing_id": f"{n}", "image_index": 0, "image_bytes": photo}]
        for n, photo in enumerate(photos)
    ]
    with ThreadPoolExecutor(len(requests)) as clients:
        answers = list(clients.map(server.score, requests))
    assert answers == [model.score(request) for request in requests]


# Runs in the model's own environment, without this checkout.
LOAD_AND_SCORE = """
import base64, json, pathlib, sys
import mlflow, pandas
folder, photos, scores = map(pathlib.Path, sys.argv[1:])
rows = json.loads(photos.read_text())
frame = pandas.DataFrame(rows).assign(
    image_bytes=[base64.b64decode(row["image_bytes"]) for row in rows]
)
predicted = mlflow.pyfunc.load_model(str(folder)).predict(frame)
import seer_model, schemas
assert all(folder in pathlib.Path(p.__file__).parents for p in (seer_model, schemas))
scores.write_text(json.dumps(predicted.to_dict("records"), default=lambda array: array.tolist()))
"""


def test_scores_are_the_same_in_an_environment_made_from_the_requirements(
    model: Registered, rows: list[Row], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(mlflow.artifacts.download_artifacts(model.uri), folder)
    environment = tmp_path / "environment"
    try:
        python = make_environment(folder, environment)
        script, photos, scores = (tmp_path / name for name in ("load.py", "photos", "scores"))
        script.write_text(LOAD_AND_SCORE, encoding="utf-8")
        photos.write_text(json.dumps(as_json(rows)), encoding="utf-8")
        run = subprocess.run(
            [python, "-I", script, folder, photos, scores],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        assert "mismatch" not in run.stderr
    finally:
        shutil.rmtree(environment, ignore_errors=True)
    assert json.loads(scores.read_text(encoding="utf-8")) == model.score(rows)


def make_environment(folder: Path, environment: Path) -> Path:
    """Make it from `python_env.yaml` and `requirements.txt`; returns its Python."""
    if not UV.exists():
        pytest.skip(f"there is no {UV}: `make setup` makes it")
    recipe = yaml.safe_load((folder / "python_env.yaml").read_text(encoding="utf-8"))
    assert recipe["python"] == platform.python_version()
    assert recipe["dependencies"] == ["-r requirements.txt"]
    uv("venv", "--python", sys.executable, environment)
    python = environment / "bin" / "python"
    requirements = ["-r", folder / "requirements.txt"]
    installed = uv(
        "pip", "install", "--python", python, *recipe["build_dependencies"], *requirements
    )
    # uv exits like this if a download fails or is not allowed; a conflict of versions exits with 1.
    if installed.returncode == 2 or "network was disabled" in installed.stderr:
        pytest.skip(f"the model's requirements cannot be downloaded here: {installed.stderr}")
    assert installed.returncode == 0, installed.stderr
    return python


def uv(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [UV, "--quiet", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
