"""Models and runs in MLflow, which beside this module only those of the logged models know."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from schemas.errors import SettingsError
from seer_model.backbone import Backbone, load_backbone
from seer_model.backbone_sources import backbone_from_source
from seer_model.bundle import Bundle, load_bundle
from seer_model.registration import register_backbone, register_bundle, requirements, tag_version

__all__ = [
    "ResolvedBundle",
    "aliased_version",
    "connect",
    "log_figures",
    "log_file",
    "move_alias",
    "register_backbone",
    "register_bundle",
    "requirements",
    "resolve_backbone",
    "resolve_bundle",
    "tag_version",
    "tracked_run",
    "version_tags",
]

EXPERIMENT = "listing-categories"


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


def connect(tracking_uri: str | None) -> str:
    """Use a tracking server or database for all that follows, and see that it answers.

    Args:
        tracking_uri: Or None for MLFLOW_TRACKING_URI, and without it `mlflow.db` in this folder.

    Returns:
        Which one that is.

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
    return tracking_uri


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


def log_figures(
    figures: Mapping[str, float], step: int | None = None, run_id: str | None = None
) -> None:
    """Log numbers to the current run, or to another; where they change over time, at a step."""
    mlflow.log_metrics(dict(figures), step=step, run_id=run_id)


def log_file(path: Path) -> None:
    """Log a file to the current run."""
    mlflow.log_artifact(str(path))


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
    """Find a backbone: `timm:…`, `vissl:…`, `zoo:…`, or where a bundle or a backbone's folder is.

    See `seer_model.backbone_sources` for the first three.

    Raises:
        SettingsError: Nothing is there.
        BundleError: What is there is damaged.
    """
    backbone = backbone_from_source(uri)
    if backbone is not None:
        return backbone
    folder, _, _ = _fetch(uri)
    for candidate in (folder, folder / "artifacts" / "backbone"):
        if (candidate / "backbone.json").is_file():
            return load_backbone(candidate)
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
        raise SettingsError(
            f"{uri}: no such folder, and not models:/…, runs:/…; nor, for a backbone, timm:…, "
            "vissl:… or zoo:…"
        )
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
