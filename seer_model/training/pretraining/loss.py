"""SwAV's loss: balanced assignments by Sinkhorn-Knopp, and swapped prediction between crops.

Caron et al. 2020, Unsupervised Learning of Visual Features by Contrasting Cluster Assignments
(https://arxiv.org/abs/2006.09882).
"""

from collections.abc import Sequence

import torch
from torch import distributed
from torch.nn import functional

__all__ = ["PrototypeQueue", "assign", "sinkhorn", "swav_loss"]


@torch.no_grad()
def sinkhorn(
    scores: torch.Tensor,
    *,
    epsilon: float,
    iterations: int = 3,
    group: distributed.ProcessGroup | None = None,
) -> torch.Tensor:
    """Soft assignments that use all prototypes equally (equations 3 to 5).

    Scales the columns and rows of exp(scores / epsilon) in turn, the rows last. In the log domain
    no sum under- or overflows, however small `epsilon` is. Constant factors (1/K, 1/B) cancel out
    and are omitted.

    Args:
        scores: Cosines of photos and prototypes, floating point, (B, K).
        epsilon: Smoothness: the smaller, the closer an assignment is to a single prototype.
        iterations: Scalings of columns and rows, at least 1.
        group: Processes that share the batch; the result is that of the whole batch, and all of
            them must call with the same K. None: this process has the whole batch.

    Returns:
        Assignments, float32, (B, K); every row sums to 1, and every column of the whole batch to
        nearly B/K.

    Raises:
        ValueError: The scores are not a matrix, or a number is out of range.
    """
    if scores.ndim != 2 or epsilon <= 0 or iterations < 1:
        raise ValueError(
            "sinkhorn needs scores (B, K), epsilon above 0 and at least one iteration, not "
            f"{tuple(scores.shape)}, {epsilon} and {iterations}"
        )
    logs = scores.float() / epsilon
    for _ in range(iterations):
        logs = logs - _log_column_sums(logs, group)
        logs = logs - logs.logsumexp(dim=1, keepdim=True)
    return logs.exp()


def _log_column_sums(logs: torch.Tensor, group: distributed.ProcessGroup | None) -> torch.Tensor:
    """Logarithms of the column sums of exp(logs), over all processes, (K,)."""
    sums = logs.logsumexp(dim=0)
    if group is None:
        return sums
    parts = [torch.empty_like(sums) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(parts, sums, group=group)
    return torch.stack(parts).logsumexp(dim=0)


def assign(
    scores: torch.Tensor,
    queued: torch.Tensor | None = None,
    *,
    epsilon: float,
    group: distributed.ProcessGroup | None = None,
) -> torch.Tensor:
    """Assignments of a large crop, balanced over its batch and a queue of earlier photos.

    Args:
        scores: Scores of the batch, (B, K).
        queued: Scores of the queue, (length, K), or None without one. Either all processes of
            `group` have a queue or none has.
        epsilon: See `sinkhorn`.
        group: See `sinkhorn`.

    Returns:
        Assignments of the batch, float32, (B, K).
    """
    scores = scores.detach().float()
    together = scores if queued is None else torch.cat([scores, queued.float()])
    assignments = sinkhorn(together, epsilon=epsilon, group=group)
    return assignments[: len(scores)]


def swav_loss(
    scores: Sequence[torch.Tensor],
    assignments: Sequence[torch.Tensor],
    *,
    temperature: float,
) -> torch.Tensor:
    """Swapped prediction (equations 1 and 2; equation 6 for more than two crops).

    The cross-entropy of each crop's softmax(scores / temperature) with the assignments of every
    large crop but itself, averaged over pairs and photos.

    Args:
        scores: Per crop, large ones first, cosines of photos and prototypes, (B, K).
        assignments: Per large crop, (B, K); no gradient flows into them.
        temperature: Above 0.

    Returns:
        The loss, a float32 scalar. At log(K) nothing is predicted.

    Raises:
        ValueError: There is no pair of crops, or shapes differ.
    """
    if not 1 <= len(assignments) <= len(scores) or len(scores) < 2:
        raise ValueError(
            "swav_loss needs scores of at least two crops, and assignments of at least one of "
            f"them and no other, not {len(scores)} and {len(assignments)}"
        )
    shapes = {tuple(matrix.shape) for matrix in (*scores, *assignments)}
    if len(shapes) > 1:
        raise ValueError(f"scores and assignments differ in shape: {sorted(shapes)}")
    predictions = [functional.log_softmax(one.float() / temperature, dim=1) for one in scores]
    # Summing the assignments first takes one product per crop instead of one per pair.
    large = [one.detach().float() for one in assignments]
    total = torch.stack(large).sum(dim=0)
    loss = predictions[0].new_zeros(())
    pairs = len(large) * (len(scores) - 1)
    for crop, prediction in enumerate(predictions):
        targets = total - large[crop] if crop < len(large) else total
        loss = loss - (targets * prediction).sum(dim=1).mean()
    return loss / pairs


class PrototypeQueue(torch.nn.Module):
    """Embeddings of the last photos, with which a small batch is assigned together.

    Section 4.1 (Working with small batches) and appendix A.3: each large crop has its own queue.
    Scores are computed from the embeddings with the current prototypes. `state_dict` holds the
    whole queue.

    Args:
        crops: Number of large crops.
        length: Photos in the queue of one process.
        width: Length of an embedding.

    Raises:
        ValueError: A number is below 1.
    """

    embeddings: torch.Tensor
    filled: torch.Tensor

    def __init__(self, *, crops: int, length: int, width: int) -> None:
        super().__init__()
        if min(crops, length, width) < 1:
            raise ValueError(
                f"a queue's crops, length and width must be 1 or more, not {crops}, {length} and "
                f"{width}"
            )
        self.register_buffer("embeddings", torch.zeros(crops, length, width))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @property
    def full(self) -> bool:
        """Whether every slot holds an embedding; until then the queue is not used."""
        return int(self.filled) == self.embeddings.shape[1]

    @torch.no_grad()
    def push(self, embeddings: Sequence[torch.Tensor]) -> None:
        """Add a batch and drop the oldest photos.

        Args:
            embeddings: Per large crop, unit vectors, (B, width).

        Raises:
            ValueError: The number or width of the crops differs from the queue's.
        """
        batch = torch.stack([one.detach() for one in embeddings]).to(self.embeddings)
        crops, length, width = self.embeddings.shape
        if batch.ndim != 3 or (batch.shape[0], batch.shape[2]) != (crops, width):
            raise ValueError(
                f"the queue holds {crops} crops of width {width}, not {tuple(batch.shape)}"
            )
        self.embeddings.copy_(torch.cat([batch, self.embeddings], dim=1)[:, :length])
        self.filled.add_(batch.shape[1]).clamp_(max=length)

    @torch.no_grad()
    def scores(self, prototypes: torch.Tensor) -> list[torch.Tensor | None]:
        """Cosines of the queue's photos and the prototypes.

        Args:
            prototypes: Unit vectors, (K, width).

        Returns:
            Per large crop, float32 (length, K), or None while the queue is not full.
        """
        if not self.full:
            return [None] * len(self.embeddings)
        with torch.autocast(prototypes.device.type, enabled=False):
            return list((self.embeddings @ prototypes.float().T).unbind(0))
