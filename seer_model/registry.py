"""Models in MLflow, found, registered and renamed; what jobs need of `tracking` is here too."""

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from schemas.errors import SeerError, SettingsError
from seer_model.backbone import Backbone, load_backbone
from seer_model.backbone_sources import backbone_from_source
from seer_model.bundle import Bundle, load_bundle
from seer_model.registration import register_backbone, register_bundle, requirements, tag_version
from seer_model.tracking import (
    EXPERIMENT,
    connect,
    link_model,
    log_curves,
    log_data,
    log_figures,
    log_file,
    log_text,
    one_line,
    tracked_run,
    tracking_lost,
)

__all__ = [
    "EXPERIMENT",
    "RegistrationFailed",
    "ResolvedBundle",
    "aliased_version",
    "connect",
    "link_model",
    "log_curves",
    "log_data",
    "log_figures",
    "log_file",
    "log_text",
    "move_alias",
    "register_backbone",
    "register_bundle",
    "registering",
    "requirements",
    "resolve_backbone",
    "resolve_bundle",
    "tag_version",
    "tracked_run",
    "tracking_lost",
    "version_tags",
]


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


class RegistrationFailed(SeerError):
    """A trained model that could not be registered; it is kept in a folder."""


@contextmanager
def registering(name: str, keep: Callable[[], Path]) -> Iterator[None]:
    """Register a model in the block; if that fails, the training was not for nothing.

    Args:
        name: Its name.
        keep: Makes sure that the model stays, and says in which folder.

    Raises:
        RegistrationFailed: It says what went wrong and names the folder.
    """
    try:
        yield
    except (MlflowException, OSError) as error:
        raise RegistrationFailed(
            f"models:/{name}: not registered: {one_line(error)}; the model is in {keep()}"
        ) from error


def version_tags(name: str, number: str) -> dict[str, str]:
    """Tags of a registered version.

    Raises:
        SettingsError: There is no such version.
    """
    try:
        return dict(MlflowClient().get_model_version(name, number).tags)
    except MlflowException as error:
        raise SettingsError(f"models:/{name}/{number}: {one_line(error)}") from error


def aliased_version(name: str, alias: str) -> str | None:
    """The version that an alias stands for, or None.

    Raises:
        SettingsError: There is no such model.
    """
    try:
        aliases = MlflowClient().get_registered_model(name).aliases
    except MlflowException as error:
        raise SettingsError(f"models:/{name}: {one_line(error)}") from error
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
    except (MlflowException, OSError) as error:
        raise SettingsError(f"{uri}: {one_line(error)}") from error
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
    """What a server sends goes to a folder that is gone when this process ends."""
    scratch = None
    if mlflow.get_tracking_uri().startswith("http"):
        scratch = tempfile.mkdtemp(prefix="seer-")
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=scratch))
