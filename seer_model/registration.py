"""Bundles and backbones as MLflow models: logged from code, with their own weights, registered."""

import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from seer_model.backbone import load_backbone
from seer_model.bundle import load_bundle

__all__ = ["register_backbone", "register_bundle", "requirements", "tag_version"]

_REQUIREMENTS = ("numpy", "pandas", "pillow", "pyarrow", "safetensors", "scipy", "timm", "torch")
_REQUIREMENTS_ALSO = ("fsspec", "torchvision")
_REQUIREMENTS_WHERE_THERE = ("openvino",)
_PHOTO: list[ColSpec | TensorSpec] = [
    ColSpec(DataType.binary, "image_bytes", required=False),
    ColSpec(DataType.string, "image_uri", required=False),
]


def register_bundle(folder: Path, name: str) -> str:
    """Log a bundle to the current run as an MLflow model and register it.

    Returns:
        The new version.
    """
    bundle = load_bundle(folder)
    tags = {
        "bundle_digest": bundle.digest,
        "licence": bundle.backbone.licence,
        "backbone": f"{bundle.backbone.architecture}: {bundle.backbone.origin}",
        "taxonomy_version": bundle.tree.taxonomy.version,
    }
    photos = (
        ColSpec(DataType.string, "listing_id"),
        ColSpec(DataType.long, "image_index", required=False),
    )
    return _register("bundle", folder, name, tags, [*photos, *_PHOTO])


def register_backbone(folder: Path, name: str) -> str:
    """Log a backbone to the current run as an MLflow model and register it, but the same only once.

    Returns:
        The version: a new one, or that which already holds this backbone.
    """
    backbone = load_backbone(folder)
    tags = {
        "backbone_digest": backbone.digest,
        "licence": backbone.licence,
        "backbone": f"{backbone.architecture}: {backbone.origin}",
    }
    for other in MlflowClient().search_model_versions(f"name = '{name}'"):
        if all(other.tags.get(key) == value for key, value in tags.items()):
            return str(other.version)
    return _register("backbone", folder, name, tags, _PHOTO)


def _register(
    kind: str, folder: Path, name: str, tags: Mapping[str, str], columns: list[ColSpec | TensorSpec]
) -> str:
    code = {"bundle": "pyfunc.py", "backbone": "pyfunc_backbone.py"}[kind]
    packages = Path(__file__).parents[1]
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="seer-") as scratch:
        # The signature is given; MLflow also hints at type hints, which its models-from-code lack.
        warnings.simplefilter("ignore")
        for package in ("seer_model", "schemas"):
            # The zoo's weights have no business in the model of another backbone.
            leave = shutil.ignore_patterns("__pycache__", "*.safetensors")
            shutil.copytree(packages / package, Path(scratch) / package, ignore=leave)
        model = mlflow.pyfunc.log_model(
            name=kind,
            python_model=str(Path(__file__).with_name(code)),
            artifacts={kind: str(folder)},
            code_paths=[str(path) for path in Path(scratch).iterdir()],
            pip_requirements=requirements(),
            signature=ModelSignature(inputs=Schema(columns)),
            registered_model_name=name,
            metadata=dict(tags),
        )
    registered = str(model.registered_model_version)
    tag_version(name, registered, tags)
    return registered


def tag_version(name: str, number: str, tags: Mapping[str, str]) -> None:
    """Set tags of a registered version."""
    for key, value in tags.items():
        MlflowClient().set_model_version_tag(name, number, key, value)


def requirements() -> list[str]:
    """What scoring a bundle needs, at the versions that run here."""
    there = [name for name in _REQUIREMENTS_WHERE_THERE if find_spec(name)]
    packages = (*_REQUIREMENTS, *_REQUIREMENTS_ALSO, *there)
    return [f"{p}=={version(p).partition('+')[0]}" for p in packages] + [
        f"mlflow=={mlflow.__version__}"
    ]
