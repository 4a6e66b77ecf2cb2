"""MLflow's registry: models found by URI, the tags and aliases of their versions."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from schemas.errors import SettingsError
from seer_model.backbones.backbone import Backbone, load_backbone
from seer_model.backbones.sources import backbone_from_source
from seer_model.categorizer.bundle import ResolvedBundle, load_bundle
from seer_model.processes import scratch_folder
from seer_model.screener.concepts import SCREENER_FILE, ResolvedScreener, load_screener_model
from seer_model.tracking.runs import one_line

__all__ = [
    "aliased_version",
    "move_alias",
    "resolve_backbone",
    "resolve_bundle",
    "resolve_model",
    "resolve_screener",
    "tag_version",
    "version_tags",
]


def version_tags(name: str, number: str) -> dict[str, str]:
    """Return the tags of a registered version.

    Raises:
        SettingsError: There is no such version.
    """
    try:
        return dict(MlflowClient().get_model_version(name, number).tags)
    except MlflowException as error:
        raise SettingsError(f"models:/{name}/{number}: {one_line(error)}") from error


def tag_version(name: str, number: str, tags: Mapping[str, str]) -> None:
    """Set tags of a registered version."""
    for key, value in tags.items():
        MlflowClient().set_model_version_tag(name, number, key, value)


def aliased_version(name: str, alias: str) -> str | None:
    """Return the version that an alias points to, or None.

    Raises:
        SettingsError: There is no such model.
    """
    try:
        aliases = MlflowClient().get_registered_model(name).aliases
    except MlflowException as error:
        raise SettingsError(f"models:/{name}: {one_line(error)}") from error
    return str(aliases[alias]) if alias in aliases else None


def move_alias(name: str, alias: str, number: str) -> None:
    """Point an alias to a version."""
    MlflowClient().set_registered_model_alias(name, alias, number)


def resolve_bundle(uri: str) -> ResolvedBundle:
    """Fetch a bundle by `models:/name@alias`, `models:/name/3`, `runs:/…` or its folder.

    An alias is resolved here, once; the result names the version.

    Raises:
        SettingsError: There is no such model or folder, or it holds no bundle.
        BundleError: The bundle is damaged, or of a newer format.
    """
    found = resolve_model(uri)
    if not isinstance(found, ResolvedBundle):
        raise SettingsError(f"{uri}: is a screener, not a categorizer's model bundle")
    return found


def resolve_screener(uri: str) -> ResolvedScreener:
    """Fetch a screener's model, as `resolve_bundle` fetches a bundle.

    Raises:
        SettingsError: There is no such model or folder, or it holds no screener.
        BundleError: The screener is damaged, or of a newer format.
    """
    found = resolve_model(uri)
    if not isinstance(found, ResolvedScreener):
        raise SettingsError(f"{uri}: is a categorizer's model bundle, not a screener")
    return found


def resolve_model(uri: str) -> ResolvedBundle | ResolvedScreener:
    """Fetch a bundle or a screener, as `resolve_bundle` does."""
    folder, name, number = _fetch(uri)
    folder = _model_folder(folder, uri)
    if (folder / SCREENER_FILE).is_file():
        screener = load_screener_model(folder)
        return ResolvedScreener(folder, screener, name, number or screener.digest[:12])
    bundle = load_bundle(folder)
    return ResolvedBundle(folder, bundle, name, number or bundle.digest[:12])


def resolve_backbone(uri: str) -> Backbone:
    """Fetch a backbone by `timm:…`, `lite:…`, `vissl:…`, `zoo:…`, or as `resolve_model` a model.

    See `seer_model.backbones.sources` for the first four. Of a bundle or a screener, its backbone.

    Raises:
        SettingsError: There is no such model, file or folder, or it holds no backbone.
        BundleError: The backbone or bundle is damaged, or of a newer format.
    """
    backbone = backbone_from_source(uri)
    if backbone is not None:
        return backbone
    folder, _, _ = _fetch(uri)
    for candidate in (folder, folder / "artifacts" / "backbone"):
        if (candidate / "backbone.json").is_file():
            return load_backbone(candidate)
    model = _model_folder(folder, uri)
    if (model / SCREENER_FILE).is_file():
        return load_screener_model(model).backbone
    return load_bundle(model).backbone


def _model_folder(folder: Path, uri: str) -> Path:
    # MLflow keeps a logged folder, under its own name, in `artifacts`.
    for candidate in (folder, *sorted(folder.glob("artifacts/*"))):
        if any((candidate / name).is_file() for name in ("bundle.json", SCREENER_FILE)):
            return candidate
    raise SettingsError(f"{uri}: holds no model bundle (no bundle.json)")


def _fetch(uri: str) -> tuple[Path, str, str | None]:
    """Return the folder, the model's name, and its version or run if it has one."""
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
            f"{uri}: no such folder; expected a folder, models:/… or runs:/…, for a backbone also "
            "timm:…, lite:…, vissl:… or zoo:…"
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
    """Download from a server to this process's scratch folder; local files stay in place."""
    scratch = None
    if mlflow.get_tracking_uri().startswith("http"):
        scratch = tempfile.mkdtemp(dir=scratch_folder())
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=scratch))
