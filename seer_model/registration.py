"""Bundles and backbones as MLflow models: logged from code, with their own weights, registered."""

import io
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import mlflow
import pandas as pd
import pyarrow as pa
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Map, Object, Property
from PIL import Image, ImageDraw

from seer_model.backbone import load_backbone
from seer_model.bundle import load_bundle
from seer_model.card import backbone_card, bundle_card
from seer_model.photo_table import READ_IMAGE_URIS
from seer_model.scoring import SCORES

__all__ = ["register_backbone", "register_bundle", "requirements", "tag_version"]

_REQUIREMENTS = (
    *("aiohttp", "fsspec", "numpy", "pandas", "pillow", "pyarrow", "safetensors", "scipy", "timm"),
    *("torch", "yarl"),
    # Imported by timm; each release of it works with one of torch.
    "torchvision",
    "mlflow",
)
_REQUIREMENTS_WHERE_THERE = ("openvino",)
_PHOTO = (
    ColSpec(DataType.binary, "image_bytes", required=False),
    ColSpec(DataType.string, "image_uri", required=False),
)
_LISTING = (
    ColSpec(DataType.string, "listing_id"),
    ColSpec(DataType.long, "image_index", required=False),
)
_MOST_OF_A_DESCRIPTION = 5000
"""Characters that MLflow's tables have room for."""


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
    example = {"listing_id": "listing-1", "image_index": 0, "image_bytes": _draw_photo()}
    signature = _signature([*_LISTING, *_PHOTO], SCORES)
    return _register("bundle", folder, name, tags, signature, example, bundle_card(bundle))


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
    signature = _signature(
        _PHOTO, pa.schema([("vector", pa.list_(pa.float32())), ("reject_reason", pa.string())])
    )
    example = {"image_bytes": _draw_photo()}
    return _register("backbone", folder, name, tags, signature, example, backbone_card(backbone))


def _register(
    kind: str,
    folder: Path,
    name: str,
    tags: Mapping[str, str],
    signature: ModelSignature,
    example: Mapping[str, object],
    card: str,
) -> str:
    code = {"bundle": "pyfunc.py", "backbone": "pyfunc_backbone.py"}[kind]
    packages = Path(__file__).parents[1]
    with (
        _no_bytecode(),
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory(prefix="seer-") as scratch,
    ):
        # The signature is given; MLflow also hints at type hints, which its models-from-code lack.
        warnings.simplefilter("ignore")
        if packages.is_file():
            # The zip that spark-submit was given.
            shutil.unpack_archive(packages, Path(scratch) / "zip", "zip")
            packages = Path(scratch) / "zip"
        copies = [Path(scratch) / package for package in ("seer_model", "schemas")]
        for copy in copies:
            # The zoo's weights have no business in the model of another backbone.
            leave = shutil.ignore_patterns("__pycache__", "*.safetensors")
            shutil.copytree(packages / copy.name, copy, ignore=leave)
        card_file = Path(scratch) / "card.md"
        card_file.write_text(card, encoding="utf-8")
        model = mlflow.pyfunc.log_model(
            name=kind,
            python_model=str(packages / "seer_model" / code),
            artifacts={kind: str(folder), "card": str(card_file)},
            code_paths=[str(copy) for copy in copies],
            pip_requirements=requirements(),
            signature=signature,
            input_example=pd.DataFrame([example]),
            model_config={READ_IMAGE_URIS: False},
            registered_model_name=name,
            metadata=dict(tags),
        )
    registered = str(model.registered_model_version)
    tag_version(name, registered, tags)
    MlflowClient().update_model_version(name, registered, description=_description(card))
    return registered


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """MLflow tries a model out before it stores it, and would store what Python compiled of it."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def tag_version(name: str, number: str, tags: Mapping[str, str]) -> None:
    """Set tags of a registered version."""
    for key, value in tags.items():
        MlflowClient().set_model_version_tag(name, number, key, value)


def requirements() -> list[str]:
    """What scoring a bundle needs, at the versions that run here.

    The same for every platform that has wheels of these versions; what a wheel is built for, such
    as `+cu132`, is left to the platform.
    """
    there = [name for name in _REQUIREMENTS_WHERE_THERE if find_spec(name)]
    return [f"{p}=={version(p).partition('+')[0]}" for p in (*_REQUIREMENTS, *there)]


def _description(card: str) -> str:
    """As much of a card as the registry takes."""
    if len(card) <= _MOST_OF_A_DESCRIPTION:
        return card
    rest = "\n- … the rest is in the model's `artifacts/card.md`\n"
    return card[: _MOST_OF_A_DESCRIPTION - len(rest)].rpartition("\n")[0] + rest


def _signature(inputs: Sequence[ColSpec], outputs: pa.Schema) -> ModelSignature:
    columns = [ColSpec(_type(f.type), f.name, required=not f.nullable) for f in outputs]
    return ModelSignature(inputs=Schema([*inputs]), outputs=Schema([*columns]))


def _type(kind: pa.DataType) -> DataType | Array | Map | Object:
    """Arrow's types as MLflow names them; the keys of a map are strings there."""
    if pa.types.is_map(kind):
        return Map(_type(kind.item_type))
    if pa.types.is_list(kind):
        return Array(_type(kind.value_type))
    if pa.types.is_struct(kind):
        return Object([Property(field.name, _type(field.type)) for field in kind])
    plain = {
        pa.string(): DataType.string,
        pa.int32(): DataType.integer,
        pa.float32(): DataType.float,
    }
    return plain[kind]


def _draw_photo() -> bytes:
    """A photo for the input example: a small yellow thing on grey."""
    image = Image.new("RGB", (96, 72), (205, 205, 200))
    ImageDraw.Draw(image).ellipse((24, 12, 72, 60), fill=(225, 180, 40))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()
