"""Registration: bundles and backbones logged as MLflow models, with code and requirements."""

import io
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import mlflow
import pandas as pd
import pyarrow as pa
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType, Array, Map, Object, Property
from PIL import Image, ImageDraw

from schemas.errors import SeerError
from seer_model.backbones.backbone import load_backbone
from seer_model.categorizer.bundle import load_bundle
from seer_model.categorizer.scoring import SCORES
from seer_model.processes import scratch_folder
from seer_model.screener.concepts import load_screener_model
from seer_model.screener.screener import SCREENED
from seer_model.tracking.card import backbone_card, bundle_card, screener_card
from seer_model.tracking.photo_table import READ_IMAGE_URIS
from seer_model.tracking.registry import tag_version
from seer_model.tracking.runs import add_to_name, one_line

__all__ = [
    "RegistrationFailed",
    "keep_on_failure",
    "register_backbone",
    "register_bundle",
    "register_screener",
    "requirements",
]

_REQUIREMENTS = (
    *("aiohttp", "fsspec", "numpy", "opencv-python-headless", "pandas", "pi_heif", "pillow"),
    *("pyarrow", "pydantic"),
    *("safetensors", "scipy", "simplejpeg", "timm", "torch", "yarl"),
    # Imported by timm; each release works with one release of torch only.
    "torchvision",
    "mlflow",
)
_REQUIREMENTS_IF_INSTALLED = ("openvino",)
# `photo_table` checks the types and decodes base64: MLflow decodes it in some formats only.
_ANY = AnyType()  # type: ignore[no-untyped-call]
_PHOTO = tuple(ColSpec(_ANY, name, required=False) for name in ("image_bytes", "image_uri"))
_LISTING = (ColSpec(_ANY, "listing_id"), ColSpec(_ANY, "image_index", required=False))
_LONGEST_DESCRIPTION = 5000
"""Characters that fit MLflow's column."""
_LONGEST_TAG = 1000


class RegistrationFailed(SeerError):
    """A trained model could not be registered; it was kept in a folder."""


@contextmanager
def keep_on_failure(name: str, keep: Callable[[], Path]) -> Iterator[None]:
    """Keep a trained model if registering it, in the block, fails.

    Args:
        name: The registered name.
        keep: Keeps the model and returns its folder; called on failure only.

    Raises:
        RegistrationFailed: Names the cause and the folder.
    """
    try:
        yield
    except (MlflowException, OSError) as error:
        raise RegistrationFailed(
            f"models:/{name}: not registered: {one_line(error)}; the model is in {keep()}"
        ) from error


def register_bundle(folder: Path, name: str) -> str:
    """Log a bundle to the current run as an MLflow model and register it.

    Returns:
        The new version's number.
    """
    bundle = load_bundle(folder)
    tags = {
        "bundle_digest": bundle.digest,
        "licence": bundle.backbone.licence,
        "backbone": f"{bundle.backbone.architecture}: {bundle.backbone.origin}",
        "taxonomy_version": bundle.tree.taxonomy.version,
    }
    signature = _signature([*_LISTING, *_PHOTO], SCORES)
    return _register("bundle", folder, name, tags, signature, _listing(), bundle_card(bundle))


def register_screener(folder: Path, name: str) -> str:
    """Log a screener to the current run as an MLflow model and register it.

    Returns:
        The new version's number.
    """
    screener = load_screener_model(folder)
    tags = {
        "screener_digest": screener.digest,
        "licence": screener.backbone.licence,
        "backbone": f"{screener.backbone.architecture}: {screener.backbone.origin}",
        "concepts": ", ".join(screener.concepts.names)[:_LONGEST_TAG],
    }
    signature = _signature([*_LISTING, *_PHOTO], SCREENED)
    return _register("screener", folder, name, tags, signature, _listing(), screener_card(screener))


def _listing() -> dict[str, object]:
    return {"listing_id": "listing-1", "image_index": 0, "image_bytes": _draw_photo()}


def register_backbone(folder: Path, name: str) -> str:
    """Log a backbone to the current run as an MLflow model and register it, each one only once.

    Returns:
        The new version's number, or that of the version that already holds this backbone.
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
    code = {
        "bundle": "pyfunc.py",
        "backbone": "pyfunc_backbone.py",
        "screener": "pyfunc_screener.py",
    }[kind]
    packages = Path(__file__).parents[2]
    with (
        _no_bytecode(),
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch,
    ):
        # MLflow recommends type hints in place of the signature; models from code cannot use them.
        warnings.simplefilter("ignore")
        if packages.is_file():
            # The packages run from the zip given to spark-submit.
            shutil.unpack_archive(packages, Path(scratch) / "zip", "zip")
            packages = Path(scratch) / "zip"
        copies = [Path(scratch) / package for package in ("seer_model", "schemas")]
        for copy in copies:
            # The model has its own weights; leave out the zoo's.
            leave = shutil.ignore_patterns("__pycache__", "*.safetensors", "network.*")
            shutil.copytree(packages / copy.name, copy, ignore=leave)
        card_file = Path(scratch) / "card.md"
        card_file.write_text(card, encoding="utf-8")
        model = mlflow.pyfunc.log_model(
            name=kind,
            python_model=str(packages / "seer_model" / "tracking" / code),
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
    add_to_name(f"{name} v{registered}")
    return registered


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Write no bytecode: MLflow imports the code that it is about to store, and would store it."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def requirements() -> list[str]:
    """Return the packages that scoring needs, pinned to the versions installed here.

    Local version labels, such as `+cu132`, are dropped: they differ between platforms.
    """
    optional = [name for name in _REQUIREMENTS_IF_INSTALLED if find_spec(name)]
    return [f"{p}=={version(p).partition('+')[0]}" for p in (*_REQUIREMENTS, *optional)]


def _description(card: str) -> str:
    """Cut a card, at a line, to what fits the registry."""
    if len(card) <= _LONGEST_DESCRIPTION:
        return card
    rest = "\n- … the rest is in the model's `artifacts/card.md`\n"
    return card[: _LONGEST_DESCRIPTION - len(rest)].rpartition("\n")[0] + rest


def _signature(inputs: Sequence[ColSpec], outputs: pa.Schema) -> ModelSignature:
    columns = [ColSpec(_type(f.type), f.name, required=not f.nullable) for f in outputs]
    return ModelSignature(inputs=Schema([*inputs]), outputs=Schema([*columns]))


def _type(kind: pa.DataType) -> DataType | Array | Map | Object:
    """Map a type of Arrow to MLflow's, in which the keys of a map are always strings."""
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
    """Draw the photo of the input example: a yellow ellipse on grey."""
    image = Image.new("RGB", (96, 72), (205, 205, 200))
    ImageDraw.Draw(image).ellipse((24, 12, 72, 60), fill=(225, 180, 40))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()
