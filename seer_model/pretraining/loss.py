"""SwAV's loss: balanced assignments by Sinkhorn-Knopp, and each crop predicting another's.

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
    epsilon: float = 0.05,
    iterations: int = 3,
    group: distributed.ProcessGroup | None = None,
) -> torch.Tensor:
    """Soft assignments that use every prototype equally (equations 3 to 5).

    The rows and columns of exp(scores / epsilon) are scaled in turn, the rows last. That is done on
    the logarithms, where no sum under- or overflows however small `epsilon` is; constant factors
    (1/K, 1/B) cancel out and are left out.

    Args:
        scores: Cosines of photos and prototypes, floating point, (B, K).
        epsilon: Smoothness: the smaller, the nearer an assignment is to a single prototype.
        iterations: Scalings of columns and rows, at least 1.
        group: Processes among which a batch is shared out; the result is that of the whole batch,
            and all must call with equal K. None: this process's rows are the batch.

    Returns:
        Assignments, float32, (B, K); every row sums to 1, and every column to nearly B/K (over the
        whole batch).

    Raises:
        ValueError: The scores are no matrix, or a number is out of range.
    """
    if scores.ndim != 2 or epsilon <= 0 or iterations < 1:
        raise ValueError(
            "sinkhorn takes scores (B, K), epsilon above 0 and at least one iteration, not "
            f"{tuple(scores.shape)}, {epsilon} and {iterations}"
        )
    logs = scores.float() / epsilon
    for _ in range(iterations):
        logs = logs - _log_column_sums(logs, group)
        logs = logs - logs.logsumexp(dim=1, keepdim=True)
    return logs.exp()


def _log_column_sums(logs: torch.Tensor, group: distributed.ProcessGroup | None) -> torch.Tensor:
    """Logarithms of the sums of the columns of exp(logs) over all processes, (K,)."""
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
    epsilon: float = 0.05,
    iterations: int = 3,
    group: distributed.ProcessGroup | None = None,
) -> torch.Tensor:
    """Assignments of a large crop, balanced over its batch and a queue of earlier photos.

    Args:
        scores: The batch's, (B, K).
        queued: Scores of the queue, (length, K), or None while there is none. All processes of
            `group` must have a queue, or none of them.
        epsilon: As in `sinkhorn`.
        iterations: As in `sinkhorn`.
        group: As in `sinkhorn`.

    Returns:
        Assignments of the batch, float32, (B, K).
    """
    scores = scores.detach().float()
    together = scores if queued is None else torch.cat([scores, queued.float()])
    assignments = sinkhorn(together, epsilon=epsilon, iterations=iterations, group=group)
    return assignments[: len(scores)]


def swav_loss(
    scores: Sequence[torch.Tensor],
    assignments: Sequence[torch.Tensor],
    *,
    temperature: float = 0.1,
) -> torch.Tensor:
    """Swapped prediction (equations 1 and 2; equation 6 for more crops than two).

    Each crop's softmax(scores / temperature) is compared, by cross-entropy, with the assignments of
    every large crop other than itself; the loss is the mean over pairs and photos.

    Args:
        scores: For each crop, the large ones first, cosines of photos and prototypes, (B, K).
        assignments: For each large crop, (B, K); no gradient flows into them.
        temperature: Above 0.

    Returns:
        The loss, a float32 scalar. log(K) means that nothing is predicted.

    Raises:
        ValueError: There is no pair of crops, or the shapes differ.
    """
    if not 1 <= len(assignments) <= len(scores) or len(scores) < 2:
        raise ValueError(
            "swav_loss takes assignments of at least one crop and scores of at least two, the same "
            f"among them, not {len(assignments)} and {len(scores)}"
        )
    shapes = {tuple(matrix.shape) for matrix in (*scores, *assignments)}
    if len(shapes) > 1:
        raise ValueError(f"scores and assignments differ in shape: {sorted(shapes)}")
    predictions = [functional.log_softmax(one.float() / temperature, dim=1) for one in scores]
    # Crop v is compared with every large crop but itself: sum their assignments first.
    large = [one.detach().float() for one in assignments]
    total = torch.stack(large).sum(dim=0)
    loss = predictions[0].new_zeros(())
    pairs = len(large) * (len(scores) - 1)
    for crop, prediction in enumerate(predictions):
        targets = total - large[crop] if crop < len(large) else total
        loss = loss - (targets * prediction).sum(dim=1).mean()
    return loss / pairs


class PrototypeQueue(torch.nn.Module):
    """Embeddings of the last photos, so that a small batch is assigned in larger company.

    Section 4.1 (Working with small batches) and appendix A.3: each large crop has a queue of its
    own. Scores are made anew from the embeddings, with the prototypes as they are by then. All is
    kept in buffers, so that `state_dict` carries it.

    Args:
        crops: Number of large crops.
        length: Photos to remember, per process.
        width: Length of an embedding.

    Raises:
        ValueError: A number is below 1.
    """

    embeddings: torch.Tensor
    filled: torch.Tensor

    def __init__(self, *, crops: int, length: int, width: int) -> None:
        super().__init__()
        if min(crops, length, width) < 1:
            raise ValueError(f"a queue cannot be {crops} x {length} x {width}")
        self.register_buffer("embeddings", torch.zeros(crops, length, width))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @property
    def full(self) -> bool:
        """Whether every place holds a photo's embedding; until then the queue is not to be used."""
        return int(self.filled) == self.embeddings.shape[1]

    @torch.no_grad()
    def push(self, embeddings: Sequence[torch.Tensor]) -> None:
        """Remember a batch and forget the oldest photos in its stead.

        Args:
            embeddings: For each large crop, unit vectors, (B, width).

        Raises:
            ValueError: There are more or fewer crops, or their width is another.
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
        """Cosines of the remembered photos and the prototypes.

        Args:
            prototypes: Unit vectors, (K, width).

        Returns:
            For each large crop, float32 (length, K), or None while the queue is not full.
        """
        if not self.full:
            return [None] * len(self.embeddings)
        with torch.autocast(prototypes.device.type, enabled=False):
            return list((self.embeddings @ prototypes.float().T).unbind(0))
