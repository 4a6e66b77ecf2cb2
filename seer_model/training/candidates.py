"""The heads to choose from, what each was not fitted on, and how to train it again."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.errors import DataContractError
from seer_model.categorizer.bundle import Bundle
from seer_model.categorizer.familiarity import Familiarity
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.linear_head import LinearHead
from seer_model.training.balance import Groups
from seer_model.training.crossfit import cross_fit, folds_by_looks, folds_by_slice
from seer_model.training.head import HeadTraining, train_head
from seer_model.training.labelled import LabelledPhotos, class_positions, listing_bounds
from seer_model.training.ridge import (
    STRENGTHS,
    Choice,
    HeldOutPhotos,
    choose_strength,
    ridge_heads,
)
from seer_model.training.unseen import fit_familiarity
from seer_model.training.watch import Watch

__all__ = ["HeadFit", "HeldOut", "Retrain", "fit_across", "fit_with_val"]

Retrain = Callable[[npt.NDArray[np.bool_]], LinearHead]
"""Trains the head on some classes alone, (classes,); the others have the bias -inf."""

_Photos = tuple[npt.NDArray[np.float16], npt.NDArray[np.int64]]
"""Embeddings, (photos, width), and the position of each photo's class."""


class HeldOut(NamedTuple):
    """Photos grouped by listing, and a head and a familiarity that were not fitted on them."""

    head: LinearHead
    familiarity: Familiarity
    photos: LabelledPhotos

    def of(self, bundle: Bundle) -> Bundle:
        """The bundle, but for what it has seen of the photos."""
        assert bundle.familiarity is not None  # noqa: S101 - just fitted
        familiarity = replace(self.familiarity, limits=bundle.familiarity.limits)
        return replace(bundle, head=self.head, familiarity=familiarity)


class HeadFit(NamedTuple):
    """A head of a kind, what it was not fitted on, and how to train it again without classes."""

    name: str
    training: HeadTraining
    held_out: list[HeldOut]
    retrain: Retrain


def fit_with_val(
    tree: ClassTree,
    train: LabelledPhotos,
    val: LabelledPhotos,
    groups: Groups | None,
    seed: int,
    watch: Watch,
) -> HeadFit:
    """Logistic regression or, unless groups are balanced, ridge if it has the better loss."""
    val, classes = val.by_listing(), len(tree.classes)
    known = np.array([label in tree.position for label in val.labels], np.bool_)
    if not known.any():
        raise DataContractError("no photo of the split val has a category of the split train")
    labels = class_positions(tree, train.labels)
    val_labels = class_positions(tree, [label for label in val.labels if label in tree.position])
    taught, stop_by = (train.vectors, labels), (val.vectors[known], val_labels)
    numbers = groups and groups.numbers
    training = train_head(
        *taught, *stop_by, classes=classes, groups=numbers, seed=seed, watch=watch
    )
    name, retrain = "logistic regression", _logistic_again(taught, stop_by, seed, watch)
    if groups is None:
        ridge = ridge_heads(*taught, classes=classes, strengths=STRENGTHS)
        choice = choose_strength([HeldOutPhotos(ridge, *stop_by)])
        if choice.loss < min(training.val_loss):
            head = ridge[STRENGTHS.index(choice.strength)].scaled(1 / choice.temperature)
            name, training = _ridge(head, choice)
            retrain = _ridge_again(taught, choice)
    familiarity = fit_familiarity(train.vectors, labels, classes)
    return HeadFit(name, training, [HeldOut(training.head, familiarity, val)], retrain)


def fit_across(tree: ClassTree, train: LabelledPhotos, fold_by: str | None) -> HeadFit:
    """Ridge from all photos, and beside it the heads of the folds.

    Raises:
        DataContractError: Every listing was chosen to learn from; or the slice to fold by has no
            two values.
    """
    train = train.by_listing()
    labels, bounds = class_positions(tree, train.labels), listing_bounds(train.listing_ids)
    of_listings = (
        folds_by_looks(train, labels[bounds[:-1]])
        if fold_by is None
        else folds_by_slice(train, fold_by)
    )
    folds = np.repeat(of_listings, np.diff(bounds))
    vectors, classes = train.vectors, len(tree.classes)
    fit = cross_fit(vectors, labels, folds, classes=classes)
    chosen = np.zeros(len(labels), np.bool_) if train.chosen is None else train.chosen
    if chosen.all():
        raise DataContractError(
            "every labelled listing was chosen to learn from, so none tells how often the model is "
            "right: label some listings at random, too"
        )
    held_out = []
    for fold, head in enumerate(fit.fold_heads):
        others, own = np.flatnonzero(folds != fold), np.flatnonzero((folds == fold) & ~chosen)
        if len(own) and len(others):
            familiarity = fit_familiarity(vectors[others], labels[others], classes)
            held_out.append(HeldOut(head, familiarity, train.some(own)))
    name, training = _ridge(fit.head, fit.choice)
    return HeadFit(name, training, held_out, _ridge_again((vectors, labels), fit.choice))


def _ridge(head: LinearHead, choice: Choice) -> tuple[str, HeadTraining]:
    return f"ridge, penalty {choice.strength:g}", HeadTraining(head, [], [choice.loss], 0)


def _logistic_again(taught: _Photos, stop_by: _Photos, seed: int, watch: Watch) -> Retrain:
    """Groups are not balanced: these heads only show what becomes of goods never seen."""

    def retrain(kept: npt.NDArray[np.bool_]) -> LinearHead:
        some, stop_by_some = _of_classes(taught, kept), _of_classes(stop_by, kept)
        if not len(stop_by_some[1]):  # Then there is nothing to stop by but what is trained on.
            stop_by_some = some
        classes = int(kept.sum())
        training = train_head(*some, *stop_by_some, classes=classes, seed=seed, watch=watch)
        return _spread(training.head, kept)

    return retrain


def _ridge_again(taught: _Photos, choice: Choice) -> Retrain:
    def retrain(kept: npt.NDArray[np.bool_]) -> LinearHead:
        some, classes = _of_classes(taught, kept), int(kept.sum())
        (head,) = ridge_heads(*some, classes=classes, strengths=[choice.strength])
        return _spread(head.scaled(1 / choice.temperature), kept)

    return retrain


def _of_classes(photos: _Photos, kept: npt.NDArray[np.bool_]) -> _Photos:
    """The photos of the classes kept, which are numbered anew."""
    vectors, labels = photos
    rows, position = kept[labels], np.cumsum(kept) - 1
    return vectors[rows], position[labels[rows]]


def _spread(head: LinearHead, kept: npt.NDArray[np.bool_]) -> LinearHead:
    """The head of the classes kept, as one of all classes: the others have the bias -inf."""
    weight = np.zeros((len(kept), head.weight.shape[1]), np.float32)
    bias = np.full(len(kept), -np.inf, np.float32)
    weight[kept], bias[kept] = head.weight, head.bias
    return LinearHead(weight, bias)
