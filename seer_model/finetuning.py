"""Train all of a backbone on labelled photos, where there are enough of them to pay for it."""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from schemas.errors import DataContractError, SettingsError
from seer_model.backbone import Backbone, make_backbone
from seer_model.batchnorm_statistics import settle_statistics
from seer_model.photo_source import PhotoSource, load_photo
from seer_model.photos import PhotoLimits, PhotoRejected
from seer_model.preprocessing import Preprocessing
from seer_model.pretraining.crops import CropSpec, MultiCrop
from seer_model.pretraining.optim import adamw, cosine_with_warmup

__all__ = ["FinetuneRecipe", "finetune"]

log = logging.getLogger(__name__)

_MARGIN = 8 / 7  # Photos are decoded a little larger than the crops, as 256 is to 224.
_SETTLING_BATCHES = 16


@dataclass(frozen=True)
class FinetuneRecipe:
    """How to fine-tune.

    Attributes:
        epochs: Passes over the photos.
        batch_size: Photos a step.
        crop_size: Side of the crops, in pixels; None is the size the backbone embeds at. Smaller
            ones are faster to train on.
        scale: Least and greatest share of a photo that a crop covers.
        colour_strength: Strength of the colour jitter; SwAV's is 1.
        learning_rate: The highest, of AdamW.
        weight_decay: Of weight matrices.
        label_smoothing: Share of the target that goes to all classes alike.
        bf16: Compute in bfloat16.
        seed: Of the classifier, the order and the crops.

    Raises:
        SettingsError: A number is out of range.
    """

    epochs: int = 20
    batch_size: int = 64
    crop_size: int | None = None
    scale: tuple[float, float] = (0.35, 1.0)
    colour_strength: float = 0.4
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    bf16: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise SettingsError("fine-tuning takes an epoch or more, of batches of two or more")


def finetune(
    backbone: Backbone,
    sources: Sequence[PhotoSource],
    labels: npt.NDArray[np.int64],
    recipe: FinetuneRecipe = FinetuneRecipe(),
    *,
    device: torch.device | str = "cpu",
    decode_threads: int = 1,
    limits: PhotoLimits = PhotoLimits(),  # noqa: B008 - frozen
) -> Backbone:
    """Train a classifier and the trunk below it together, and return the trunk.

    A class counts as much as any other, as in `seer_model.head.train_head`, and a head is trained
    on the new features as on any. Photos that cannot be read are left out.

    Args:
        backbone: Where to begin; random weights make this training from scratch.
        sources: The photos.
        labels: int64, (photos,), from 0 on.
        recipe: How to train.
        device: Where to train.
        decode_threads: Photos decoded at the same time.
        limits: Limits on photos.

    Returns:
        A backbone with weights, and so a digest, of its own. Statistics of batch normalisation are
        those of the labelled photos at the size that they are embedded at.

    Raises:
        DataContractError: Fewer than two photos can be read, or one can no longer be.
        SettingsError: The training diverged.
    """
    device = torch.device(device)
    photos = _Photos(sources, backbone.preprocessing, decode_threads, limits)
    usable = photos.usable()
    if len(usable) < 2:
        raise DataContractError(f"{len(usable)} labelled photos can be read: nothing to learn from")
    if len(usable) < len(sources):
        log.warning("%d labelled photos cannot be read", len(sources) - len(usable))
    model = _classifier(backbone, int(labels.max()) + 1, recipe.seed).to(device)
    generator = torch.Generator().manual_seed(recipe.seed)
    batch = min(recipe.batch_size, len(usable))
    per_epoch = len(usable) // batch

    def shuffled() -> Sequence[npt.NDArray[np.int64]]:
        order = usable[torch.randperm(len(usable), generator=generator).numpy()]
        return list(order[: per_epoch * batch].reshape(per_epoch, batch))

    learner = _Learner(model, recipe, backbone.preprocessing, labels, per_epoch, generator)
    for epoch in range(1, recipe.epochs + 1):
        rows = shuffled()
        losses = [
            learner.learn(pixels.to(device), chosen)
            for pixels, chosen in zip(photos.batches(rows, learner.photo_size), rows, strict=True)
        ]
        loss = float(torch.stack(losses).mean())
        log.info("fine-tuning, epoch %d of %d: loss %.3f", epoch, recipe.epochs, loss)
        if not math.isfinite(loss):
            raise SettingsError(f"fine-tuning diverged in epoch {epoch}; lower the learning rate")
    trained = make_backbone(
        backbone.architecture,
        backbone.preprocessing,
        feature_stages=backbone.feature_stages,
        licence=backbone.licence,
        origin=f"{backbone.origin}; fine-tuned on {len(usable)} labelled photos",
        weights={
            name: tensor.to("cpu", memory_format=torch.contiguous_format)
            for name, tensor in model[0].state_dict().items()
        },
    )
    whole = photos.batches(shuffled()[:_SETTLING_BATCHES], backbone.preprocessing.image_size)
    return settle_statistics(trained, whole, device=device)


def _classifier(backbone: Backbone, classes: int, seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = nn.Linear(backbone.width, classes)
    return nn.Sequential(backbone.build(), linear).to(memory_format=torch.channels_last).train()


class _Learner:
    """Classifier, optimiser and augmentation."""

    def __init__(
        self,
        model: nn.Sequential,
        recipe: FinetuneRecipe,
        preprocessing: Preprocessing,
        labels: npt.NDArray[np.int64],
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
        self._weights = torch.from_numpy(balanced.astype(np.float32))
        size = recipe.crop_size or preprocessing.image_size
        self.photo_size = math.ceil(size * _MARGIN)
        self._crops = MultiCrop(
            [CropSpec(size, 1, recipe.scale)],
            preprocessing=preprocessing,
            colour_strength=recipe.colour_strength,
            grey_probability=0.05,
            blur_probability=0.1,
        )
        self._optimiser = adamw(model, lr=0.0, weight_decay=recipe.weight_decay)

    def learn(self, photos: torch.Tensor, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """Take a step; returns the loss, a scalar on the photos' device."""
        recipe = self._recipe
        for group in self._optimiser.param_groups:
            group["lr"] = cosine_with_warmup(
                self._step,
                total=recipe.epochs * self._steps_per_epoch,
                warmup=self._steps_per_epoch,
                base=recipe.learning_rate,
                final=0.0,
            )
        (crops,) = self._crops(photos, self._generator)
        with torch.autocast(photos.device.type, torch.bfloat16, enabled=recipe.bf16):
            logits = self._model(crops)
        loss = functional.cross_entropy(
            logits.float(),
            self._labels[torch.from_numpy(rows)].to(photos.device),
            self._weights.to(photos.device),
            label_smoothing=recipe.label_smoothing,
        )
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._step += 1
        return loss.detach()


class _Photos:
    """Reads batches of photos, one ahead of what is asked for."""

    def __init__(
        self,
        sources: Sequence[PhotoSource],
        preprocessing: Preprocessing,
        threads: int,
        limits: PhotoLimits,
    ) -> None:
        self._sources = sources
        self._preprocessing = preprocessing
        self._threads = threads
        self._limits = limits

    def usable(self) -> npt.NDArray[np.int64]:
        """The photos that can be read; none is kept."""
        tiny = replace(self._preprocessing, image_size=1)

        def is_usable(source: PhotoSource) -> bool:
            try:
                load_photo(source, tiny, self._limits)
            except PhotoRejected:
                return False
            return True

        with ThreadPoolExecutor(self._threads, thread_name_prefix="finetune-decode") as pool:
            return np.flatnonzero(list(pool.map(is_usable, self._sources)))

    def batches(self, rows: Iterable[npt.NDArray[np.int64]], size: int) -> Iterator[torch.Tensor]:
        """Each row's photos, uint8, (N, size, size, 3)."""
        preprocessing = replace(self._preprocessing, image_size=size)

        def load(number: int) -> npt.NDArray[np.uint8]:
            try:
                return load_photo(self._sources[number], preprocessing, self._limits)
            except PhotoRejected as rejected:
                where = self._sources[number].uri or "a photo in the manifest"
                raise DataContractError(
                    f"{where}: could be read, and no longer can ({rejected.reason.value})"
                ) from rejected

        with ThreadPoolExecutor(self._threads, thread_name_prefix="finetune-decode") as pool:
            rest = iter(rows)
            ahead = [[pool.submit(load, i) for i in row] for row in islice(rest, 2)]
            while ahead:
                loading = ahead.pop(0)
                ahead += [[pool.submit(load, i) for i in row] for row in islice(rest, 1)]
                yield torch.from_numpy(np.stack([future.result() for future in loading]))
