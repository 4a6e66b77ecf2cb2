"""Alarms for a pretraining that collapses: one answer for every photo makes the loss no worse."""

import math
from dataclasses import dataclass

import torch
from torch import distributed
from torch.nn import functional

__all__ = ["CollapseMonitor", "CollapseReport", "collapse_report"]

_MIN_USED = 0.05
_MIN_ENTROPY = 0.25
_MIN_INFORMATION = 0.01
_MIN_SPREAD = 0.1


@dataclass(frozen=True)
class CollapseReport:
    """What a batch, or an epoch, of assignments and features looks like from afar.

    Attributes:
        photos: How many it is about.
        prototypes_used: Prototypes that are some photo's first choice, as a share of those that
            could be: min(K, photos). Alarm below 0.05.
        assignment_entropy: Entropy of the mean assignment over log K: 1 if all prototypes get an
            equal share. Alarm below 0.25. Sinkhorn keeps the shares equal even when all photos are
            the same to the model, so its alarm is the next one.
        assignment_information: What a photo says about its prototype (mutual information: entropy
            of the mean assignment less mean entropy of an assignment) over log K: 0 if all photos
            have the same assignment. Alarm below 0.01.
        feature_spread: Standard deviation over photos of a unit-length feature's dimension, in the
            mean over dimensions, times the root of their number: about 1 if features point in all
            directions alike, 0 if all are the same (Chen and He 2021, SimSiam,
            https://arxiv.org/abs/2011.10566, section 4.1). Alarm below 0.1; LARC's
            first steps may leave it at 0.2 while kinds of photos part.
    """

    photos: int
    prototypes_used: float
    assignment_entropy: float
    assignment_information: float
    feature_spread: float

    def explain(self) -> str | None:
        """A sentence that names the gravest alarm, or None if there is none."""
        values = (self.assignment_entropy, self.assignment_information, self.feature_spread)
        if not all(math.isfinite(value) for value in values):
            return "The training diverged: features or assignments are not finite."
        if self.feature_spread < _MIN_SPREAD:
            return (
                f"Features collapsed: their spread is {self.feature_spread:.3f} where 1 is healthy "
                f"and {_MIN_SPREAD} the least; the model says nearly the same of every photo."
            )
        if self.assignment_information < _MIN_INFORMATION:
            return (
                "Assignments collapsed: they are nearly the same for every photo (information "
                f"{self.assignment_information:.4f}, at least {_MIN_INFORMATION})."
            )
        if self.assignment_entropy < _MIN_ENTROPY:
            return (
                "Assignments collapsed: most photos go to few prototypes (entropy "
                f"{self.assignment_entropy:.3f}, at least {_MIN_ENTROPY})."
            )
        if self.prototypes_used < _MIN_USED:
            return (
                f"Prototypes collapsed: only {self.prototypes_used:.1%} of those that could be are "
                f"any photo's first choice, at least {_MIN_USED:.0%} should be."
            )
        return None


class CollapseMonitor:
    """Gathers what a `CollapseReport` needs, batch by batch, without waiting for the device.

    Args:
        prototypes: Their number K, at least 2.
        width: Length of a feature.
        device: Where the batches are.
    """

    def __init__(self, *, prototypes: int, width: int, device: torch.device | str = "cpu") -> None:
        self.photos = 0
        self._assigned = torch.zeros(prototypes, dtype=torch.float64, device=device)
        self._used = torch.zeros(prototypes, dtype=torch.bool, device=device)
        self._entropy = torch.zeros((), dtype=torch.float64, device=device)
        self._sum = torch.zeros(width, dtype=torch.float64, device=device)
        self._squares = torch.zeros(width, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, assignments: torch.Tensor, features: torch.Tensor) -> None:
        """Take in a batch.

        Args:
            assignments: Rows that sum to 1, (B, K): `sinkhorn`'s, or softmax(scores / temperature).
            features: (B, width): embeddings of any length above 0. The trunk's own features are
                never negative and so point less far apart than embeddings do.
        """
        self.photos += len(assignments)
        self._assigned += assignments.sum(dim=0, dtype=torch.float64)
        self._used[assignments.argmax(dim=1)] = True
        self._entropy += torch.special.entr(assignments.float()).sum(dtype=torch.float64)
        unit = functional.normalize(features.float(), dim=1).double()
        self._sum += unit.sum(dim=0)
        self._squares += unit.square().sum(dim=0)

    def report(self, group: distributed.ProcessGroup | None = None) -> CollapseReport:
        """The report on all batches taken in so far, at least one.

        Args:
            group: Processes that each took in a part of every batch; the report is on all parts,
                and the same in each. All must call. None: on this process's alone.

        Raises:
            ValueError: There was none.
        """
        if not self.photos:
            raise ValueError("there is nothing to report on yet")
        scalars = torch.stack([self._entropy, torch.full_like(self._entropy, self.photos)])
        parts = [self._assigned, self._used.double(), self._sum, self._squares, scalars]
        total = torch.cat(parts)
        if group is not None:
            distributed.all_reduce(total, group=group)
        assigned, used, sums, squares, scalars = torch.split(total, [len(part) for part in parts])
        within, photos = float(scalars[0]), int(scalars[1])
        prototypes, width = len(assigned), len(sums)
        entropy = float(torch.special.entr(assigned / photos).sum())
        variance = (squares / photos - (sums / photos).square()).clamp(min=0.0)
        return CollapseReport(
            photos=photos,
            prototypes_used=int((used > 0).sum()) / min(prototypes, photos),
            assignment_entropy=entropy / math.log(prototypes),
            assignment_information=(entropy - within / photos) / math.log(prototypes),
            feature_spread=float(variance.sqrt().mean()) * math.sqrt(width),
        )


def collapse_report(assignments: torch.Tensor, features: torch.Tensor) -> CollapseReport:
    """The report on a single batch; see `CollapseMonitor.update` for the arguments."""
    monitor = CollapseMonitor(
        prototypes=assignments.shape[1], width=features.shape[1], device=assignments.device
    )
    monitor.update(assignments, features)
    return monitor.report()
