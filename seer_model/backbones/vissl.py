"""Read SEER checkpoints as published, in the layout of VISSL.

VISSL (https://github.com/facebookresearch/vissl) keeps the trunk under
`classy_state_dict.base_model.model.trunk`; head, optimiser and the rest are not read. Such a file
is a pickle: it is read without executing the code that it may hold.
"""

from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from timm.models.regnet import _filter_fn as rename_as_timm_does

from schemas.errors import BundleError
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.torch_files import State, check_tensors, read_torch_file
from seer_model.backbones.trunk import blueprint
from seer_model.backbones.weights import make_backbone
from seer_model.files import short_repr

__all__ = ["SEER_LICENCE", "load_vissl"]

SEER_LICENCE = "seer-license"
"""Licence of the published weights: non-commercial research only."""

_TRUNK = ("classy_state_dict", "base_model", "model", "trunk")
_PREFIX = "_feature_blocks."
_PUBLISHED = ("regnety_320", "regnety_640", "regnety_1280")
_COUNTER = "num_batches_tracked"
_SHOWN = 3

Shapes = dict[str, tuple[int, ...]]


def load_vissl(path: Path) -> Backbone:
    """Read the trunk of a published SEER checkpoint and tell its architecture from its shapes.

    Every tensor of the architecture must be there in its shape, and nothing else. Only batch
    normalisation's counters, on which no feature depends, may be missing.

    Raises:
        SettingsError: There is no such file.
        BundleError: It holds pickled code, is damaged, is not a checkpoint of VISSL, or fits none
            of timm's RegNetYs.
    """
    trunk = _rename(_read_trunk(path), path)
    architecture = _recognise({name: tuple(tensor.shape) for name, tensor in trunk.items()}, path)
    # Copies: the tensors are mapped from the file.
    weights = {
        name: trunk[name].clone(memory_format=torch.contiguous_format)
        if name in trunk
        else torch.tensor(0)
        for name in _shapes_of(architecture)
    }
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


def _read_trunk(path: Path) -> State:
    content = read_torch_file(path)
    for depth, key in enumerate(_TRUNK):
        if not isinstance(content, Mapping) or key not in content:
            raise BundleError(
                f"{path}: no {'.'.join(_TRUNK[: depth + 1])}; not a checkpoint of VISSL"
            )
        content = content[key]
    trunk = check_tensors(content, ".".join(_TRUNK), path)
    for name in trunk:
        if not name.startswith(_PREFIX):
            raise BundleError(
                f"{path}: {short_repr(name)} in {'.'.join(_TRUNK)} is not a tensor of a trunk"
            )
    return trunk


def _rename(trunk: State, path: Path) -> State:
    """Give tensors timm's names; a name that timm does not know stays as it is."""
    model = {"trunk": trunk, "heads": {}}
    try:
        renamed: State = rename_as_timm_does(
            {"classy_state_dict": {"base_model": {"model": model}}}
        )
    except ValueError as error:  # A block's number of thousands of digits.
        raise BundleError(f"{path}: a tensor's name is too long") from error
    if len(renamed) < len(trunk):
        raise BundleError(f"{path}: two tensors have the same name in timm")
    return renamed


def _shapes_of(architecture: str) -> Shapes:
    state = blueprint(architecture).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _recognise(found: Shapes, path: Path) -> str:
    """The architecture that has exactly these tensors."""
    closest: tuple[float, str, str] = (float("inf"), "", "")
    others = [name for name in timm.list_models("regnety_*") if name not in _PUBLISHED]
    for architecture in (*_PUBLISHED, *others):
        expected = _shapes_of(architecture)
        missing = [n for n in expected if n not in found and not n.endswith(_COUNTER)]
        unexpected = [n for n in found if n not in expected]
        wrong = [n for n in expected if n in found and found[n] != expected[n]]
        count = len(missing) + len(unexpected) + len(wrong)
        if count == 0:
            return architecture
        if count < closest[0]:
            shapes = [f"{n} {list(found[n])}, not {list(expected[n])}" for n in wrong]
            differences = (("missing", missing), ("unexpected", unexpected), ("misshapen", shapes))
            clauses = "; ".join(f"{kind} {_few(names)}" for kind, names in differences if names)
            closest = (count, architecture, clauses)
    raise BundleError(
        f"{path}: fits no RegNetY of timm; the closest is {closest[1]}, with {closest[2]}"
    )


def _few(names: list[str]) -> str:
    """The first few of many names."""
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(short_repr(name)[1:-1] for name in names[:_SHOWN]) + rest
