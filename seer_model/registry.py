"""Models and runs in MLflow: the only module, but for the logged model itself, that knows it."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlparse

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from schemas.errors import SettingsError
from seer_model.backbone import Backbone, load_backbone, random_backbone
from seer_model.bundle import Bundle, load_bundle

__all__ = [
    "ResolvedBundle",
    "aliased_version",
    "connect",
    "log_figures",
    "log_file",
    "move_alias",
    "register_bundle",
    "requirements",
    "resolve_backbone",
    "resolve_bundle",
    "tag_version",
    "tracked_run",
    "version_tags",
]

EXPERIMENT = "listing-categories"

_REQUIREMENTS = ("numpy", "pandas", "pillow", "pyarrow", "safetensors", "scipy", "timm", "torch")
_REQUIREMENTS_ALSO = ("fsspec", "torchvision")


@dataclass(frozen=True)
class ResolvedBundle:
    """A bundle on local disk and the name and version that its predictions carry.

    Attributes:
        folder: The bundle.
        bundle: Its content, checked.
        name: Registered name, or the folder's name, or the run it comes from.
        version: Registered version; for a folder, the first 12 digits of the bundle's digest.
    """

    folder: Path
    bundle: Bundle
    name: str
    version: str


def connect(tracking_uri: str | None) -> None:
    """Use a tracking server or database for all that follows, and see that it answers.

    Args:
        tracking_uri: Or None for MLFLOW_TRACKING_URI, and without it `mlflow.db` in this folder.

    Raises:
        SettingsError: The address is not one of MLflow's, or nothing answers there.
    """
    tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        mlflow.set_tracking_uri(tracking_uri)
        mlflow.set_registry_uri(tracking_uri)
        if mlflow.get_experiment_by_name(EXPERIMENT) is None:
            mlflow.create_experiment(EXPERIMENT, artifact_location=_artifacts(tracking_uri))
        mlflow.set_experiment(EXPERIMENT)
    except Exception as error:
        raise SettingsError(
            f"no MLflow at {_without_password(tracking_uri)}: {_one_line(error)}"
        ) from error


def _artifacts(tracking_uri: str) -> str | None:
    """Beside a SQLite file; a server decides for itself."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return (Path(tracking_uri.removeprefix("sqlite:///")).resolve().parent / "mlruns").as_uri()


def _without_password(uri: str) -> str:
    parsed = urlparse(uri)
    if "@" not in parsed.netloc:
        return uri
    return parsed._replace(netloc=parsed.netloc.rpartition("@")[2]).geturl()


def _one_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


@contextmanager
def tracked_run(job: str, parameters: Mapping[str, object]) -> Iterator[str]:
    """An MLflow run around a job's work; yields its id. A failure marks the run as failed."""
    with mlflow.start_run(run_name=job, tags={"job": job}) as run:
        mlflow.log_params({name: str(value)[:500] for name, value in parameters.items()})
        yield run.info.run_id


def log_figures(figures: Mapping[str, float]) -> None:
    """Log numbers to the current run."""
    mlflow.log_metrics(dict(figures))


def log_file(path: Path) -> None:
    """Log a file to the current run."""
    mlflow.log_artifact(str(path))


def register_bundle(folder: Path, name: str) -> str:
    """Log a bundle to the current run as an MLflow model and register it.

    Returns:
        The new version.
    """
    bundle = load_bundle(folder)
    packages = Path(__file__).parents[1]
    with warnings.catch_warnings():
        # The signature is given; MLflow also hints at type hints, which its models-from-code lack.
        warnings.simplefilter("ignore")
        model = mlflow.pyfunc.log_model(
            name="bundle",
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={"bundle": str(folder)},
            code_paths=[str(packages / "seer_model"), str(packages / "schemas")],
            pip_requirements=requirements(),
            signature=_signature(),
            registered_model_name=name,
            metadata={"bundle_digest": bundle.digest, "licence": bundle.backbone.licence},
        )
    registered = str(model.registered_model_version)
    tags = {
        "bundle_digest": bundle.digest,
        "licence": bundle.backbone.licence,
        "backbone": f"{bundle.backbone.architecture}: {bundle.backbone.origin}",
        "taxonomy_version": bundle.tree.taxonomy.version,
    }
    tag_version(name, registered, tags)
    return registered


def tag_version(name: str, number: str, tags: Mapping[str, str]) -> None:
    """Set tags of a registered version."""
    for key, value in tags.items():
        MlflowClient().set_model_version_tag(name, number, key, value)


def version_tags(name: str, number: str) -> dict[str, str]:
    """Tags of a registered version.

    Raises:
        SettingsError: There is no such version.
    """
    try:
        return dict(MlflowClient().get_model_version(name, number).tags)
    except MlflowException as error:
        raise SettingsError(f"models:/{name}/{number}: {_one_line(error)}") from error


def aliased_version(name: str, alias: str) -> str | None:
    """The version that an alias stands for, or None.

    Raises:
        SettingsError: There is no such model.
    """
    try:
        aliases = MlflowClient().get_registered_model(name).aliases
    except MlflowException as error:
        raise SettingsError(f"models:/{name}: {_one_line(error)}") from error
    return str(aliases[alias]) if alias in aliases else None


def move_alias(name: str, alias: str, number: str) -> None:
    """Let an alias stand for a version."""
    MlflowClient().set_registered_model_alias(name, alias, number)


def requirements() -> list[str]:
    """What scoring a bundle needs, at the versions that run here."""
    return [f"{p}=={version(p).partition('+')[0]}" for p in _REQUIREMENTS + _REQUIREMENTS_ALSO] + [
        f"mlflow=={mlflow.__version__}"
    ]


def _signature() -> ModelSignature:
    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "listing_id"),
        ColSpec(DataType.long, "image_index", required=False),
        ColSpec(DataType.binary, "image_bytes", required=False),
        ColSpec(DataType.string, "image_uri", required=False),
    ]
    return ModelSignature(inputs=Schema(inputs))


def resolve_bundle(uri: str) -> ResolvedBundle:
    """Find a bundle: `models:/name@alias`, `models:/name/3`, `runs:/…` or a folder.

    An alias is looked up here once; what is returned names the version.

    Raises:
        SettingsError: Nothing is there.
        BundleError: What is there is not a bundle, or is damaged.
    """
    folder, name, number = _fetch(uri)
    bundle_folder = _inside(folder, "bundle.json", uri)
    bundle = load_bundle(bundle_folder)
    return ResolvedBundle(bundle_folder, bundle, name, number or bundle.digest[:12])


def resolve_backbone(uri: str) -> Backbone:
    """Find a backbone: `timm:NAME`, or where a bundle or a backbone's own folder is.

    `timm:NAME` without a weights tag is that architecture with seeded random weights.

    Raises:
        SettingsError: Nothing is there.
        BundleError: What is there is damaged.
    """
    if uri.startswith("timm:"):
        name = uri.removeprefix("timm:")
        if "." in name:
            raise SettingsError(
                f"{uri}: pretrained weights are not read yet; "
                f"timm:{name.partition('.')[0]} gives the architecture with random weights"
            )
        return random_backbone(name)
    folder, _, _ = _fetch(uri)
    if (folder / "backbone.json").is_file():
        return load_backbone(folder)
    return load_bundle(_inside(folder, "bundle.json", uri)).backbone


def _inside(folder: Path, name: str, uri: str) -> Path:
    # MLflow keeps a logged folder under `artifacts`, by the name that it had.
    for candidate in (folder, *sorted(folder.glob("artifacts/*"))):
        if (candidate / name).is_file():
            return candidate
    raise SettingsError(f"{uri}: holds no model bundle (no {name})")


def _fetch(uri: str) -> tuple[Path, str, str | None]:
    scheme, _, rest = uri.partition(":/")
    try:
        if scheme == "models":
            name, number = _registered(rest)
            return _download(f"models:/{name}/{number}"), name, number
        if scheme == "runs":
            return _download(uri), uri, rest.strip("/").partition("/")[0]
    except MlflowException as error:
        raise SettingsError(f"{uri}: {_one_line(error)}") from error
    folder = Path(uri)
    if not folder.is_dir():
        raise SettingsError(f"{uri}: no such folder, and not models:/…, runs:/… or timm:…")
    return folder, folder.resolve().name, None


def _registered(rest: str) -> tuple[str, str]:
    name, at, alias = rest.rpartition("@")
    if at:
        return name, str(MlflowClient().get_model_version_by_alias(name, alias).version)
    name, _, number = rest.rpartition("/")
    if not name or not number.isdigit():
        raise SettingsError(f"models:/{rest}: expected models:/name@alias or models:/name/3")
    return name, str(MlflowClient().get_model_version(name, number).version)


def _download(uri: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
