"""SEER's checkpoints as they were published, in VISSL's layout and with VISSL's names.

VISSL (https://github.com/facebookresearch/vissl) keeps the trunk under
`classy_state_dict.base_model.model.trunk`; head, optimiser and the rest are not read. Such a file
is a pickle: it is read without executing anything that it may hold.
"""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch

from schemas.errors import BundleError, SettingsError
from seer_model.backbone import Backbone, make_backbone
from seer_model.files import DTYPES, short_repr
from seer_model.preprocessing import Preprocessing
from seer_model.trunk import Trunk

__all__ = ["SEER_LICENCE", "load_vissl", "vissl_name"]

SEER_LICENCE = "seer-license"
"""Of the published weights: non-commercial research only."""

_TRUNK = ("classy_state_dict", "base_model", "model", "trunk")
_PREFIX = "_feature_blocks."
_LAYERS = {
    "conv1.conv": "f.a.0",
    "conv1.bn": "f.a.1",
    "conv2.conv": "f.b.0",
    "conv2.bn": "f.b.1",
    "se.fc1": "f.se.excitation.0",
    "se.fc2": "f.se.excitation.2",
    "conv3.conv": "f.c",
    "conv3.bn": "f.final_bn",
    "downsample.conv": "proj",
    "downsample.bn": "bn",
}
"""A block's layers by timm's names, and by VISSL's."""

_PUBLISHED = ("regnety_320", "regnety_640", "regnety_1280")
_COUNTER = "num_batches_tracked"
_SHOWN = 3

Shapes = dict[str, tuple[int, ...]]


class _Plan(NamedTuple):
    """What tells one RegNet from another at a glance."""

    stem: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]


def load_vissl(path: Path) -> Backbone:
    """The trunk of a published SEER checkpoint; its architecture is told by its shapes.

    Counters of batches, which no feature depends on, may be missing; every other tensor of the
    architecture must be there in its shape, and nothing else.

    Raises:
        SettingsError: There is no such file.
        BundleError: It holds pickled code, is damaged, is not such a checkpoint, or is of no
            RegNetY that timm has.
    """
    trunk = _read_trunk(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in trunk.items()}
    architecture = _recognise(shapes, path)
    weights = {
        name: trunk[vissl_name(name)].clone() if vissl_name(name) in trunk else torch.tensor(0)
        for name in _trunk_shapes(architecture)
    }
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(
                f"{path}: tensor {vissl_name(name)} holds numbers that are not finite"
            )
    try:
        return make_backbone(
            architecture,
            Preprocessing(),
            licence=SEER_LICENCE,
            origin=f"SEER checkpoint {path.name} in VISSL's format",
            weights=weights,
        )
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error


def vissl_name(name: str) -> str:
    """VISSL's name of a trunk's tensor, of timm's name: both count stages and blocks their way.

    Raises:
        KeyError: A RegNetY has no such tensor.
    """
    layer, _, kind = name.rpartition(".")
    if layer.startswith("stem."):
        return f"{_PREFIX}conv1.stem.{('stem.conv', 'stem.bn').index(layer)}.{kind}"
    stage, block, part = layer.split(".", 2)
    number, place = int(stage.removeprefix("s")), int(block.removeprefix("b"))
    return f"{_PREFIX}res{number + 1}.block{number}-{place - 1}.{_LAYERS[part]}.{kind}"


def _read_trunk(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise SettingsError(f"vissl:{path}: no such file")
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_stored(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of what is refused below.
            # Files of torch before 1.6 cannot be mapped.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # A damaged pickle can end in any of them.
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = (
            f"holds pickled code ({named[1]}), which is not run"
            if named
            else f"not a readable checkpoint ({type(error).__name__})"
        )
        raise BundleError(f"{path}: {reason}; get the checkpoint from where it is published") from (
            error
        )
    for depth, key in enumerate(_TRUNK):
        if not isinstance(content, Mapping) or key not in content:
            raise BundleError(f"{path}: no {'.'.join(_TRUNK[: depth + 1])}; not VISSL's checkpoint")
        content = content[key]
    return _checked(content, path)


def _check_stored(path: Path) -> None:
    """Refuse what torch never writes, and what may unpack to a thousand times its size."""
    with zipfile.ZipFile(path) as file:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
            raise zipfile.BadZipFile("compressed")


def _checked(trunk: Any, path: Path) -> dict[str, torch.Tensor]:
    if not isinstance(trunk, Mapping):
        raise BundleError(f"{path}: {'.'.join(_TRUNK)} is no mapping of tensors")
    for name, tensor in trunk.items():
        if not isinstance(tensor, torch.Tensor) or not str(name).startswith(_PREFIX):
            raise BundleError(
                f"{path}: {short_repr(name)} in {'.'.join(_TRUNK)} is no tensor of a trunk"
            )
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.dtype not in DTYPES or not tensor.is_contiguous():
            raise BundleError(
                f"{path}: tensor {short_repr(name)} is not an array of numbers of 16 or 32 bits"
            )
    # One number in the file may stand for a tensor of any size.
    if sum(tensor.nbytes for tensor in trunk.values()) > path.stat().st_size:
        raise BundleError(f"{path}: its tensors are larger than the file")
    return {name: tensor.detach() for name, tensor in trunk.items()}


def _trunk_shapes(architecture: str) -> Shapes:
    with torch.device("meta"):
        state = Trunk(architecture).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _recognise(found: Shapes, path: Path) -> str:
    """The architecture that has just these tensors."""
    plan = _plan(found)
    problems = None
    others = [name for name in timm.list_models("regnety_*") if name not in _PUBLISHED]
    for architecture in (*_PUBLISHED, *others):
        try:
            expected = {vissl_name(k): s for k, s in _trunk_shapes(architecture).items()}
        except KeyError:  # A relative that VISSL has no names for.
            continue
        if _plan(expected) == plan:
            differences = _compare(found, expected)
            if not differences:
                return architecture
            problems = problems or f"not quite {architecture}: {'; '.join(differences)}"
    if problems is None:
        problems = (
            f"no RegNetY has a stem of {plan.stem}, stages of {list(plan.widths)} channels and "
            f"{list(plan.depths)} blocks"
        )
    raise BundleError(f"{path}: {problems}")


def _plan(shapes: Shapes) -> _Plan:
    def channels(name: str) -> int:
        return (*shapes.get(name, ()), 0)[0]

    depths: dict[int, int] = {}
    for name in shapes:
        block = re.match(rf"{re.escape(_PREFIX)}res\d+\.block(\d+)-(\d+)\.", name)
        if block:
            stage, place = int(block[1]), int(block[2])
            depths[stage] = max(depths.get(stage, 0), place + 1)
    return _Plan(
        channels(f"{_PREFIX}conv1.stem.0.weight"),
        tuple(channels(f"{_PREFIX}res{s + 1}.block{s}-0.f.c.weight") for s in sorted(depths)),
        tuple(depths[stage] for stage in sorted(depths)),
    )


def _compare(found: Shapes, expected: Shapes) -> list[str]:
    """A clause each for what is missing, unexpected and misshapen; few names of many."""
    missing = [n for n in expected if n not in found and not n.endswith(_COUNTER)]
    unexpected = [n for n in found if n not in expected]
    misshapen = [
        f"{n} {list(found[n])}, not {list(expected[n])}"
        for n in expected
        if n in found and found[n] != expected[n]
    ]
    return [
        f"{kind} {', '.join(short_repr(name)[1:-1] for name in names[:_SHOWN])}"
        + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
        )
        if names
    ]
