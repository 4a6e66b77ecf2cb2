"""What a registered version holds: signature, example, card, requirements, code, and no more."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
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
from seer_model import registry
from seer_model.backbone import save_backbone
from seer_model.bundle import Bundle, load_bundle, save_bundle
from seer_model.card import backbone_card, bundle_card
from seer_model.hierarchy import ClassTree
from seer_model.registration import requirements
from seer_model.scoring import SCORES

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


class Version(NamedTuple):
    """A registered version and its files, as they were before Python compiled any of them."""

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
    registry.connect(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")
    with pytest.MonkeyPatch.context() as patch:
        # MLflow puts the code of what it loads in front.
        patch.setattr("sys.path", [*sys.path])
        # As Python does unless told otherwise.
        patch.setattr("sys.dont_write_bytecode", False)
        yield


@pytest.fixture(scope="module")
def bundle(saved_bundle: Path) -> Bundle:
    return load_bundle(saved_bundle)


@pytest.fixture(scope="module")
def registered(saved_bundle: Path) -> Version:
    with registry.tracked_run("test", {}):
        return Version.fetch("bundles", registry.register_bundle(saved_bundle, "bundles"))


@pytest.fixture(scope="module")
def model(registered: Version) -> Any:
    return registered.load()


@pytest.fixture(scope="module")
def registered_backbone(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Version:
    folder = tmp_path_factory.mktemp("trunk") / "backbone"
    save_backbone(bundle.backbone, folder)
    with registry.tracked_run("test", {}):
        number = registry.register_backbone(folder, "backbones")
        assert registry.register_backbone(folder, "backbones") == number
    return Version.fetch("backbones", number)


def test_signature_is_what_goes_in_and_comes_out(model: Any) -> None:
    signature = model.metadata.signature
    assert [str(column) for column in signature.inputs] == [
        "'listing_id': string (required)",
        "'image_index': long (optional)",
        "'image_bytes': binary (optional)",
        "'image_uri': string (optional)",
    ]
    assert [str(column) for column in signature.outputs] == [
        "'listing_id': string (required)",
        "'decision': string (required)",
        "'category_id': string (optional)",
        "'category_path': Array(string) (optional)",
        "'score': float (optional)",
        "'candidates': Array({category_id: string (required), score: float (required)}) (required)",
        "'reject_reason': string (optional)",
        "'images_used': integer (required)",
        "'images_rejected': integer (required)",
        "'image_rejects': Map(str -> DataType.string) (optional)",
    ]
    assert signature.outputs.input_names() == SCORES.names


def test_the_example_predicts(model: Any) -> None:
    assert model.input_example["image_bytes"].iloc[0].startswith(b"\xff\xd8")
    scores = model.predict(model.input_example)
    assert scores.columns.tolist() == SCORES.names
    assert (scores["listing_id"][0], scores["images_used"][0]) == ("listing-1", 1)


def test_what_json_lacks_is_not_in_the_scores(model: Any) -> None:
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
        replace(bundle, tree=tree, calibration=calibration, training=training), tmp_path / "long"
    )
    with registry.tracked_run("test", {}):
        version = Version.fetch("long", registry.register_bundle(tmp_path / "long", "long"))
    card = (version.folder / "artifacts" / "card.md").read_text(encoding="utf-8")
    assert len(card) > 5000
    assert len(version.description) <= 5000
    kept, rest = version.description.rsplit("\n", 2)[0], "artifacts/card.md"
    assert card.startswith(f"{kept}\n")
    assert rest in version.description


def test_addresses_are_not_read(registered: Version, model: Any) -> None:
    photos = pd.DataFrame({"listing_id": ["a"], "image_uri": ["/no/photo.jpg"]})
    for unchanged in (model, registered.load(read_image_uris="false")):
        with pytest.raises(MlflowException, match="reads no addresses; send image_bytes"):
            unchanged.predict(photos)


def test_addresses_are_read_where_that_was_allowed(
    registered: Version, registered_backbone: Version
) -> None:
    photos = pd.DataFrame({"listing_id": ["a"], "image_uri": ["/no/photo.jpg"]})
    for found in (registered, registered_backbone):
        allowed = found.load(read_image_uris=True).predict(photos)
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
    with pytest.raises(MlflowException, match="reads no addresses; send image_bytes"):
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
    assert Path("code/seer_model/photo_table.py") in registered.files
    assert Path("code/schemas/rejects.py") in registered.files


LOADED = """
import ast, importlib, json, pathlib, sys
for module in ("pyfunc", "pyfunc_backbone", "openvino_runtime", "torch_runtime", "web_client"):
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
        # Without what a wheel is built for, as in 2.15.0+cu132.
        assert re.fullmatch(r"[\w.]+", pin)
        assert version(name).split("+")[0] == pin


def test_mlflow_does_not_report_its_use(tmp_path: Path) -> None:
    # In an environment that looks like no test's, where MLflow would by itself.
    code = "import {}; from mlflow.telemetry import client; print(client.get_telemetry_client())"
    said = {
        module: subprocess.run(
            [sys.executable, "-c", code.format(module)],
            env={"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for module in ("mlflow", "jobs.train_head")
    }
    assert "TelemetryClient" in said["mlflow"]
    assert said["jobs.train_head"] == "None"
