"""A registered version: signature, example, card, requirements, code, and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from schemas.taxonomy import Category, Taxonomy
from seer_model.backbones.backbone import Backbone, save_backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.categorizer.bundle import Bundle, load_bundle, save_bundle
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.scoring import SCORES
from seer_model.tracking import registration, runs
from seer_model.tracking.card import backbone_card, bundle_card
from seer_model.tracking.registration import requirements
from tests.support.paths import ROOT
from tests.support.tracking_database import new_database

pytestmark = pytest.mark.slow


def _open_once(open_embedder: Callable[..., PhotoEmbedder]) -> Callable[..., PhotoEmbedder]:
    opened: dict[str, PhotoEmbedder] = {}

    def open_(backbone: Backbone, **options: Any) -> PhotoEmbedder:
        if backbone.digest not in opened:
            opened[backbone.digest] = open_embedder(backbone, **options)
        return opened[backbone.digest]

    return open_


class Version(NamedTuple):
    """A registered version and its files, listed before Python compiles any of them."""

    name: str
    number: str
    folder: Path
    files: frozenset[Path]

    @classmethod
    def fetch(cls, name: str, number: str) -> "Version":
        folder = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{number}"))
        files = frozenset(path.relative_to(folder) for path in folder.rglob("*.*"))
        return cls(name, number, folder, files)

    @property
    def description(self) -> str:
        return MlflowClient().get_model_version(self.name, self.number).description

    def load(self, **settings: object) -> Any:
        return mlflow.pyfunc.load_model(str(self.folder), model_config=settings or None)


@pytest.fixture(scope="module", autouse=True)
def _tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    runs.connect(new_database(tmp_path_factory.mktemp("mlflow")))
    with pytest.MonkeyPatch.context() as patch:
        # MLflow prepends the code of each model that it loads.
        patch.setattr("sys.path", [*sys.path])
        # Python's default, whatever the environment of the tests.
        patch.setattr("sys.dont_write_bytecode", False)
        # Every registration and load opens the backbone; all have the same one.
        patch.setattr(PhotoEmbedder, "open", staticmethod(_open_once(PhotoEmbedder.open)))
        yield


@pytest.fixture(scope="module")
def bundle(saved_bundle: Path) -> Bundle:
    return load_bundle(saved_bundle)


@pytest.fixture(scope="module")
def registered(saved_bundle: Path) -> Version:
    with runs.tracked_run("test", {}):
        return Version.fetch("bundles", registration.register_bundle(saved_bundle, "bundles"))


@pytest.fixture(scope="module")
def model(registered: Version) -> Any:
    return registered.load()


@pytest.fixture(scope="module")
def registered_backbone(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Version:
    folder = tmp_path_factory.mktemp("trunk") / "backbone"
    save_backbone(bundle.backbone, folder)
    with runs.tracked_run("test", {}):
        number = registration.register_backbone(folder, "backbones")
        assert registration.register_backbone(folder, "backbones") == number
    return Version.fetch("backbones", number)


def test_signature(model: Any) -> None:
    signature = model.metadata.signature
    assert [str(column) for column in signature.inputs] == [
        "'listing_id': Any (required)",
        "'image_index': Any (optional)",
        "'image_bytes': Any (optional)",
        "'image_uri': Any (optional)",
    ]
    assert [str(column) for column in signature.outputs] == [
        "'listing_id': string (required)",
        "'decision': string (required)",
        "'category_id': string (optional)",
        "'category_path': Array(string) (optional)",
        "'score': float (optional)",
        "'candidates': Array({category_id: string (required), score: float (required)}) (required)",
        "'review_reason': string (optional)",
        "'reject_reason': string (optional)",
        "'images_used': integer (required)",
        "'images_rejected': integer (required)",
        "'image_rejects': Map(str -> DataType.string) (optional)",
    ]
    assert signature.outputs.input_names() == SCORES.names


def test_the_example_predicts(model: Any) -> None:
    assert b64decode(model.input_example["image_bytes"].iloc[0]).startswith(b"\xff\xd8")
    scores = model.predict(model.input_example)
    assert scores.columns.tolist() == SCORES.names
    assert (scores["listing_id"][0], scores["images_used"][0]) == ("listing-1", 1)


@pytest.mark.parametrize("encode", ["plain", "data URI"])
def test_every_format_of_a_request_has_the_same_answer(model: Any, encode: str) -> None:
    prefix = "data:image/jpeg;base64," if encode == "data URI" else ""
    photo = prefix + model.input_example["image_bytes"].iloc[0]
    columns = {"listing_id": ["a", "b", "c"], "image_bytes": [photo, None, ""]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    split = {"columns": [*columns], "data": [[*row.values()] for row in rows]}
    answers = [
        json.loads(_serve(model, request).response)["predictions"]
        for request in (
            {"dataframe_records": rows},
            {"dataframe_split": split},
            {"instances": rows},
            {"inputs": rows},
            {"inputs": columns},
        )
    ]
    assert all(answer == answers[0] for answer in answers)
    assert [row["images_used"] for row in answers[0]] == [1, 0, 0]
    assert [row["reject_reason"] for row in answers[0]] == [None, "no_photo", "empty_file"]
    one = {name: values[0] for name, values in columns.items()}
    for request in ({"inputs": one}, {"inputs": {name: [value] for name, value in one.items()}}):
        assert json.loads(_serve(model, request).response)["predictions"] == answers[0][:1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"listing_id": "b", "image_bytes": "$$$"}, "row 1: image_bytes is not base64"),
        ({"listing_id": None, "image_bytes": ""}, "row 1: listing_id is missing"),
    ],
)
@pytest.mark.parametrize("form", ["dataframe_records", "instances", "inputs"])
def test_every_format_has_the_same_refusal(
    model: Any, form: str, row: dict[str, object], message: str
) -> None:
    with pytest.raises(MlflowException, match=message) as caught:
        _serve(model, {form: [{"listing_id": "a", "image_bytes": ""}, row]})
    assert caught.value.get_http_status_code() == 400


def _serve(model: Any, request: object) -> Any:
    """What MLflow's server does with the body of a request."""
    from mlflow.pyfunc import scoring_server  # noqa: PLC0415 - warns unless a model was loaded

    return scoring_server.invocations(
        json.dumps(request), "application/json", model, model.metadata.get_input_schema()
    )


def test_scores_are_fit_for_json(model: Any) -> None:
    photos = pd.DataFrame({"listing_id": ["a", "a"], "image_bytes": [b"no photo", None]})
    (row,) = model.predict(photos).to_dict("records")
    assert (row["score"], row["category_id"], row["category_path"]) == (None, None, None)
    assert row["image_rejects"] == {"0": "not_an_image", "1": "no_photo"}
    assert (row["reject_reason"], row["images_rejected"]) == ("not_an_image", 2)


def test_card_is_in_the_model_and_in_the_registry(registered: Version, bundle: Bundle) -> None:
    card = (registered.folder / "artifacts" / "card.md").read_text(encoding="utf-8")
    assert card == registered.description == bundle_card(bundle)


def test_a_card_too_long_for_the_registry_is_cut_there(bundle: Bundle, tmp_path: Path) -> None:
    names = [("Top", f"{n} {'long name ' * 12}") for n in range(len(bundle.tree.classes))]
    below = [Category(path[1], path, "top") for path in names]
    tree = ClassTree(
        Taxonomy([Category("top", ("Top",), None), *below], "long"), [c.category_id for c in below]
    )
    training = {f"setting {n}": "x" * 100 for n in range(30)}
    calibration = replace(bundle.calibration, thresholds=(None, 0.9))
    save_bundle(
        replace(bundle, tree=tree, calibration=calibration, training=training, familiarity=None),
        tmp_path / "long",
    )
    with runs.tracked_run("test", {}):
        version = Version.fetch("long", registration.register_bundle(tmp_path / "long", "long"))
    card = (version.folder / "artifacts" / "card.md").read_text(encoding="utf-8")
    assert len(card) > 5000
    assert len(version.description) <= 5000
    kept, rest = version.description.rsplit("\n", 2)[0], "artifacts/card.md"
    assert card.startswith(f"{kept}\n")
    assert rest in version.description


def test_uris_are_not_read_by_default(registered: Version, model: Any) -> None:
    photos = pd.DataFrame({"listing_id": ["a"], "image_uri": ["/no/photo.jpg"]})
    for closed in (model, registered.load(read_image_uris="false")):
        with pytest.raises(MlflowException, match="reads no URIs; send image_bytes"):
            closed.predict(photos)


def test_uris_are_read_if_the_setting_allows_it(
    registered: Version, registered_backbone: Version
) -> None:
    photos = pd.DataFrame({"listing_id": ["a"], "image_uri": ["/no/photo.jpg"]})
    for version_ in (registered, registered_backbone):
        allowed = version_.load(read_image_uris=True).predict(photos)
        assert allowed["reject_reason"].tolist() == ["not_found"]


def test_backbone(registered_backbone: Version, bundle: Bundle) -> None:
    card = (registered_backbone.folder / "artifacts" / "card.md").read_text(encoding="utf-8")
    assert card == registered_backbone.description == backbone_card(bundle.backbone)
    model = registered_backbone.load()
    assert [str(column) for column in model.metadata.signature.outputs] == [
        "'vector': Array(float) (optional)",
        "'reject_reason': string (optional)",
    ]
    (row,) = model.predict(model.input_example).to_dict("records")
    assert len(row["vector"]) == bundle.backbone.width
    assert row["reject_reason"] is None
    with pytest.raises(MlflowException, match="reads no URIs; send image_bytes"):
        model.predict(pd.DataFrame({"image_uri": ["/no/photo.jpg"]}))


def test_the_files_of_a_version(registered: Version, saved_bundle: Path) -> None:
    assert (registered.folder / "requirements.txt").read_text(encoding="utf-8").split() == (
        requirements()
    )
    suffixes = {file.suffix for file in registered.files}
    assert {".pkl", ".pickle", ".pyc", ".pt"}.isdisjoint(suffixes)
    weights = {file for file in registered.files if file.suffix == ".safetensors"}
    inside = {path.relative_to(saved_bundle) for path in saved_bundle.rglob("*.safetensors")}
    assert weights == {Path("artifacts") / saved_bundle.name / path for path in inside}
    assert Path("code/seer_model/tracking/photo_table.py") in registered.files
    assert Path("code/schemas/rejects.py") in registered.files


LOADED = """
import ast, importlib, json, pathlib, sys
for module in (
    "tracking.pyfunc",
    "tracking.pyfunc_backbone",
    "tracking.pyfunc_screener",
    "backbones.runtimes.openvino",
    "backbones.runtimes.pytorch",
    "photos.http_client",
):
    importlib.import_module(f"seer_model.{module}")
files = {m.__file__ for n, m in sys.modules.items() if n.split(".")[0] in ("seer_model", "schemas")}
imported = set()
for file in files:
    for node in ast.walk(ast.parse(pathlib.Path(file).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
print(json.dumps([sorted({n.split(".")[0] for n in imported}), "torchvision" in sys.modules]))
"""


def test_requirements_are_what_the_models_import(tmp_path: Path) -> None:
    for package in ("seer_model", "schemas"):
        shutil.copytree(ROOT / package, tmp_path / package)
    run = subprocess.run(
        [sys.executable, "-c", LOADED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    modules, has_torchvision = json.loads(run.stdout)
    assert has_torchvision
    pinned = dict(requirement.split("==") for requirement in requirements())
    distributions = packages_distributions()
    imported = {
        next((name for name in distributions[module] if name in pinned), distributions[module][0])
        for module in set(modules) - sys.stdlib_module_names - {"seer_model", "schemas"}
    }
    assert set(pinned) == imported | {"torchvision"}
    for name, pin in pinned.items():
        # No local version label, as in 2.15.0+cu132.
        assert re.fullmatch(r"[\w.]+", pin)
        assert version(name).split("+")[0] == pin


def test_mlflow_does_not_report_its_use(tmp_path: Path) -> None:
    # MLflow also keeps quiet where it recognizes a test, so the environment is a bare one.
    code = "import {}; from mlflow.telemetry import client; print(client.get_telemetry_client())"
    clients = {
        module: subprocess.run(
            [sys.executable, "-c", code.format(module)],
            env={"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for module in ("mlflow", "seer_model.tracking.runs")
    }
    assert "TelemetryClient" in clients["mlflow"]
    assert clients["seer_model.tracking.runs"] == "None"
