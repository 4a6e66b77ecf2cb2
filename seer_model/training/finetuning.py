"""Fine-tune a whole backbone on labelled photos, where there are enough of them."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from schemas.errors import DataContractError, SettingsError
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.trunk import check_photo_size, normalise
from seer_model.backbones.weights import make_backbone
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.pixels import load_photo
from seer_model.photos.source import PhotoSource
from seer_model.training.precision import mixed_precision
from seer_model.training.pretraining.crops import CropSpec, MultiCrop
from seer_model.training.pretraining.optim import adamw, cosine_with_warmup
from seer_model.training.watch import Watch, unwatched

__all__ = ["FinetuneRecipe", "PhotoSources", "finetune"]

log = logging.getLogger(__name__)

# Photos are decoded slightly larger than the crops: the usual ratio of 256 to 224.
_MARGIN = 8 / 7
_STATISTICS_BATCHES = 16
_CHECKS_AT_ONCE = 4096

Rows = npt.NDArray[np.int64]


class PhotoSources(Protocol):
    """Photos by number, such as a list; read when they are asked for, so there may be many."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> PhotoSource: ...


@dataclass(frozen=True)
class FinetuneRecipe:
    """Settings of a fine-tuning.

    Attributes:
        epochs: Passes over the photos.
        batch_size: Photos per step.
        crop_size: Side of the crops, in pixels; None is the size that the backbone embeds at.
            Smaller crops train faster.
        scale: Smallest and largest share of a photo's area that a crop covers.
        colour_strength: Strength of the colour jitter, from 0 to 1 (SwAV's).
        degraded: Share of the crops that are degraded as sellers' photos are.
        learning_rate: AdamW's peak rate.
        weight_decay: Weight decay of matrices and kernels.
        label_smoothing: Share of the target that is spread over all classes.
        bf16: Compute in bfloat16; None: if the device has instructions for it.
        seed: Seed of the classifier's weights, the order of photos and the crops.

    Raises:
        SettingsError: A number is out of range.
    """

    epochs: int = 20
    batch_size: int = 64
    crop_size: int | None = None
    scale: tuple[float, float] = (0.35, 1.0)
    colour_strength: float = 0.4
    degraded: float = 0.0
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    bf16: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise SettingsError(
                f"fine-tuning needs at least one epoch, not {self.epochs}, of batches of at least "
                f"two photos, not {self.batch_size}"
            )


def finetune(
    backbone: Backbone,
    sources: PhotoSources,
    labels: Rows,
    recipe: FinetuneRecipe = FinetuneRecipe(),
    *,
    device: torch.device | str = "cpu",
    decode_threads: int = 1,
    limits: PhotoLimits = PhotoLimits(),  # noqa: B008 - frozen
    on_epoch: Callable[[int, float], None] = lambda _epoch, _loss: None,
    watch: Watch = unwatched,
) -> Backbone:
    """Train a linear classifier together with the trunk below it, and return the trunk.

    Every class has the same weight, as in `train_head`. The classifier is discarded: train a head
    on the new embeddings, as for any backbone. Unreadable photos are skipped.

    Args:
        backbone: Where to start; with random weights this is training from scratch.
        sources: The photos.
        labels: Class of each photo, int64, (photos,), from 0.
        recipe: The settings.
        device: Where to train.
        decode_threads: Photos decoded in parallel.
        limits: Limits on photos.
        on_epoch: Called after each epoch with its number, from 1, and its mean loss.
        watch: Shows the progress.

    Returns:
        A backbone with new weights and therefore a new digest. Its batch normalisation statistics
        are those of the labelled photos at the size at which they are embedded.

    Raises:
        DataContractError: Fewer than two photos are readable, or one stops being readable.
        SettingsError: The trunk takes no crops of that size, or the training diverged.
    """
    if recipe.crop_size is not None:
        check_photo_size(backbone.architecture, recipe.crop_size)
    device = torch.device(device)
    photos = _Photos(sources, decode_threads, limits)
    readable = _at_least_two(photos.readable(watch), len(sources))
    model = _classifier(backbone, int(labels.max()) + 1, recipe.seed).to(device)
    generator = torch.Generator().manual_seed(recipe.seed)
    batch_size = min(recipe.batch_size, len(readable))
    steps_per_epoch = len(readable) // batch_size

    def shuffled() -> list[Rows]:
        order = readable[torch.randperm(len(readable), generator=generator).numpy()]
        return list(order[: steps_per_epoch * batch_size].reshape(steps_per_epoch, batch_size))

    learner = _Learner(model, recipe, backbone.preprocessing, labels, steps_per_epoch, generator)
    for epoch in range(1, recipe.epochs + 1):
        rows = shuffled()
        batches = zip(photos.batches(rows, learner.photo_size), rows, strict=True)
        label = f"fine-tuning, epoch {epoch} of {recipe.epochs}"
        losses = [
            learner.learn(pixels.to(device), chosen)
            for pixels, chosen in watch(batches, label, "steps", len(rows))
        ]
        loss = float(torch.stack(losses).mean())
        log.info("fine-tuning, epoch %d of %d: loss %.3f", epoch, recipe.epochs, loss)
        if not math.isfinite(loss):
            raise SettingsError(f"fine-tuning diverged in epoch {epoch}; lower the learning rate")
        on_epoch(epoch, loss)
    origin = f"{backbone.origin}; fine-tuned on {len(readable)} labelled photos"
    trained = _with_weights(backbone, model[0], origin)
    rows = shuffled()[:_STATISTICS_BATCHES]
    whole = photos.batches(rows, backbone.preprocessing.image_size)
    label = "fine-tuning, statistics of whole photos"
    return _with_statistics_of(trained, watch(whole, label, "batches", len(rows)), device)


def _at_least_two(readable: Rows, photos: int) -> Rows:
    if len(readable) < 2:
        raise DataContractError(
            f"{len(readable)} of {photos} labelled photos are readable; fine-tuning needs two"
        )
    if len(readable) < photos:
        log.warning("skipping %d unreadable labelled photos", photos - len(readable))
    return readable


def _classifier(backbone: Backbone, classes: int, seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = nn.Linear(backbone.width, classes)
    return nn.Sequential(backbone.build(), linear).to(memory_format=torch.channels_last).train()


def _with_weights(backbone: Backbone, trunk: nn.Module, origin: str) -> Backbone:
    return make_backbone(
        backbone.architecture,
        backbone.preprocessing,
        feature_stages=backbone.feature_stages,
        licence=backbone.licence,
        origin=origin,
        weights={
            name: tensor.to("cpu", memory_format=torch.contiguous_format)
            for name, tensor in trunk.state_dict().items()
        },
    )


def _with_statistics_of(
    backbone: Backbone, batches: Iterable[torch.Tensor], device: torch.device
) -> Backbone:
    """Re-estimate batch normalisation's means and variances on whole photos.

    During training, the running statistics follow crops: small, recoloured, under changing weights.
    Whole photos at another size have activations of another scale (Touvron et al. 2019,
    https://arxiv.org/abs/1906.06423). So they are averaged over such photos with the weights
    frozen (Wu and Johnson 2021, https://arxiv.org/abs/2105.07576, section 3).

    Args:
        backbone: The trained backbone.
        batches: Photos at the backbone's size, uint8, (N, size, size, 3), N above 1; at least one
            batch, and no more than some thousand photos are needed.
        device: Where to compute.
    """
    trunk = backbone.build().to(device).to(memory_format=torch.channels_last)
    inputs = (normalise(batch.to(device), backbone.preprocessing) for batch in batches)
    update_bn(inputs, trunk)
    return _with_weights(backbone, trunk, backbone.origin)


class _Learner:
    """Classifier, optimiser and augmentation.

    Args:
        model: Trunk and linear layer.
        recipe: The settings.
        preprocessing: The backbone's.
        labels: Class of each photo.
        steps_per_epoch: Batches per epoch.
        generator: Source of the crops' random numbers.

    Attributes:
        photo_size: Side of the photos that `learn` takes, in pixels.
    """

    def __init__(
        self,
        model: nn.Sequential,
        recipe: FinetuneRecipe,
        preprocessing: Preprocessing,
        labels: Rows,
        steps_per_epoch: int,
        generator: torch.Generator,
    ) -> None:
        self._model = model
        self._recipe = recipe
        self._labels = torch.from_numpy(labels)
        self._steps_per_epoch = steps_per_epoch
        self._generator = generator
        self._step = 0
        counts = np.bincount(labels)
        balanced = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        self._class_weights = torch.from_numpy(balanced.astype(np.float32))
        size = recipe.crop_size or preprocessing.image_size
        self.photo_size = math.ceil(size * _MARGIN)
        self._crops = MultiCrop(
            [CropSpec(size, 1, recipe.scale)],
            preprocessing=preprocessing,
            colour_strength=recipe.colour_strength,
            grey_probability=0.05,
            blur_probability=0.1,
            degraded=recipe.degraded,
        )
        self._optimiser = adamw(model, lr=0.0, weight_decay=recipe.weight_decay)

    def learn(self, photos: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Take a step.

        Args:
            photos: uint8, (B, photo_size, photo_size, 3), on the device.
            rows: The photos' positions in `labels`, (B,).

        Returns:
            The loss, a scalar on the photos' device.
        """
        recipe = self._recipe
        for group in self._optimiser.param_groups:
            group["lr"] = cosine_with_warmup(
                self._step,
                total=recipe.epochs * self._steps_per_epoch,
                warmup=self._steps_per_epoch,
                base=recipe.learning_rate,
            )
        (crops,) = self._crops(photos, self._generator)
        with mixed_precision(photos.device, recipe.bf16):
            logits = self._model(crops)
        loss = functional.cross_entropy(
            logits.float(),
            self._labels[torch.from_numpy(rows)].to(photos.device),
            self._class_weights.to(photos.device),
            label_smoothing=recipe.label_smoothing,
        )
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._step += 1
        return loss.detach()


class _Photos:
    """Decodes batches of photos in threads, prefetching one batch."""

    def __init__(self, sources: PhotoSources, threads: int, limits: PhotoLimits) -> None:
        self._sources = sources
        self._threads = threads
        self._limits = limits

    def readable(self, watch: Watch) -> Rows:
        """Positions of the readable photos; pixels are not kept."""

        def is_readable(number: int) -> bool:
            try:
                load_photo(self._sources[number], 1, self._limits)
            except PhotoRejected:
                return False
            return True

        with ThreadPoolExecutor(self._threads, thread_name_prefix="finetune-decode") as pool:
            photos = range(len(self._sources))
            # A pool takes all tasks of a call at once.
            parts = (photos[i : i + _CHECKS_AT_ONCE] for i in photos[::_CHECKS_AT_ONCE])
            found = chain.from_iterable(pool.map(is_readable, part) for part in parts)
            label = "fine-tuning, checking that photos are readable"
            return np.flatnonzero(list(watch(found, label, "photos", len(photos))))

    def batches(self, rows: Iterable[Rows], size: int) -> Iterator[torch.Tensor]:
        """Decode one batch per item of `rows`: uint8, (N, size, size, 3)."""

        def load(number: int) -> npt.NDArray[np.uint8]:
            try:
                return load_photo(self._sources[number], size, self._limits)
            except PhotoRejected as rejected:
                where = self._sources[number].uri or "a photo in the manifest"
                raise DataContractError(
                    f"{where}: was readable before and no longer is ({rejected.reason.value})"
                ) from rejected

        with ThreadPoolExecutor(self._threads, thread_name_prefix="finetune-decode") as pool:
            rest = iter(rows)
            ahead = [[pool.submit(load, i) for i in row] for row in islice(rest, 2)]
            while ahead:
                loading = ahead.pop(0)
                ahead += [[pool.submit(load, i) for i in row] for row in islice(rest, 1)]
                yield torch.from_numpy(np.stack([future.result() for future in loading]))
