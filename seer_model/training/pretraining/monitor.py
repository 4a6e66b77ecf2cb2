"""Detect collapse, where all photos get nearly the same embedding or assignment.

The loss does not show it.
"""

import math
from dataclasses import dataclass

import torch
from torch import distributed
from torch.nn import functional

__all__ = ["CollapseMonitor", "CollapseReport"]

_MIN_USED = 0.05
_MIN_ENTROPY = 0.25
_MIN_INFORMATION = 0.01
_MIN_SPREAD = 0.1


@dataclass(frozen=True)
class CollapseReport:
    """Summary of the assignments and features of a batch or an epoch.

    Attributes:
        photos: Number of photos.
        prototypes_used: Prototypes that are the first choice of at least one photo, as a share of
            min(K, photos). Alarm below 0.05.
        assignment_entropy: Entropy of the mean assignment over log K: 1 if all prototypes get an
            equal share. Alarm below 0.25. Sinkhorn balances the shares even if the model does not
            tell photos apart; `assignment_information` detects that.
        assignment_information: Mutual information of photo and prototype (entropy of the mean
            assignment minus mean entropy of an assignment) over log K: 0 if all photos have the
            same assignment. Alarm below 0.01.
        feature_spread: Standard deviation of unit-length features over photos, averaged over
            dimensions, times the square root of their number: about 1 if features point in all
            directions alike, 0 if they are all the same (Chen and He 2021, SimSiam,
            https://arxiv.org/abs/2011.10566, section 4.1). Alarm below 0.1; in LARS's first steps
            0.2 is normal.
    """

    photos: int
    prototypes_used: float
    assignment_entropy: float
    assignment_information: float
    feature_spread: float

    def explain(self) -> str | None:
        """The most serious alarm as a sentence, or None."""
        values = (self.assignment_entropy, self.assignment_information, self.feature_spread)
        if not all(math.isfinite(value) for value in values):
            return "Training diverged: features or assignments are not finite."
        if self.feature_spread < _MIN_SPREAD:
            return (
                f"Features collapsed: their spread is {self.feature_spread:.3f}, at least "
                f"{_MIN_SPREAD} (1 is healthy); all photos get nearly the same embedding."
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
                f"Prototypes collapsed: {self.prototypes_used:.1%} of those possible are the first "
                f"choice of any photo, at least {_MIN_USED:.0%}."
            )
        return None


class CollapseMonitor:
    """Accumulates a `CollapseReport` batch by batch, without waiting for the device.

    Args:
        prototypes: Number of prototypes K, at least 2.
        width: Length of a feature.
        device: The batches' device.
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
        """Add a batch.

        Args:
            assignments: Rows that sum to 1, (B, K), as `sinkhorn` returns them.
            features: Embeddings of any length above 0, (B, width). The trunk's features would not
                do: they are never negative, so their spread is smaller.
        """
        self.photos += len(assignments)
        self._assigned += assignments.sum(dim=0, dtype=torch.float64)
        self._used[assignments.argmax(dim=1)] = True
        self._entropy += torch.special.entr(assignments.float()).sum(dtype=torch.float64)
        unit = functional.normalize(features.float(), dim=1).double()
        self._sum += unit.sum(dim=0)
        self._squares += unit.square().sum(dim=0)

    def report(self, group: distributed.ProcessGroup | None = None) -> CollapseReport:
        """Report on all batches so far.

        Args:
            group: Processes that share the batches; all must call, and get the same report on all
                slices. None: report on this process's batches.

        Raises:
            ValueError: There was no batch.
        """
        if not self.photos:
            raise ValueError("nothing to report: no batch was added")
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
