"""SwAV's loss against the paper's formulas, and the queue."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import distributed

from seer_model.training.pretraining.loss import PrototypeQueue, assign, sinkhorn, swav_loss
from tests.support.swav_training import run_processes

Floats = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def cosines(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) * 1.4 - 0.7


# Sinkhorn


def reference_sinkhorn(scores: Floats, epsilon: float = 0.05, iterations: int = 3) -> Floats:
    """The paper's algorithm 1, in its own layout (prototypes x photos) and with its factors."""
    q = np.exp((scores.T - scores.max()) / epsilon)
    q /= q.sum()
    prototypes, photos = q.shape
    for _ in range(iterations):
        q /= q.sum(axis=1, keepdims=True) * prototypes
        q /= q.sum(axis=0, keepdims=True) * photos
    return (q * photos).T


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.1, 1), (0.03, 7)])
def test_sinkhorn_is_the_papers(epsilon: float, iterations: int) -> None:
    scores = cosines(12, 5)
    result = sinkhorn(scores, epsilon=epsilon, iterations=iterations)
    expected = reference_sinkhorn(scores.double().numpy(), epsilon, iterations)
    np.testing.assert_allclose(result.numpy(), expected, rtol=2e-4, atol=1e-7)


def test_sinkhorn_balances() -> None:
    # All photos prefer prototype 0, and still each prototype gets its share.
    scores = cosines(40, 4) * 0.3
    scores[:, 0] += 0.5
    result = sinkhorn(scores, epsilon=0.05, iterations=60)
    torch.testing.assert_close(result.sum(dim=1), torch.ones(40))
    torch.testing.assert_close(result.sum(dim=0), torch.full((4,), 10.0), rtol=1e-3, atol=0)
    rough = sinkhorn(scores, epsilon=0.05)
    torch.testing.assert_close(rough.sum(dim=1), torch.ones(40))
    assert (rough.sum(dim=0) - 10).abs().max() < 2


def test_sinkhorn_survives_an_epsilon_that_underflows_exponentials() -> None:
    scores = torch.tensor([[1.0, -1.0, -1.0], [1.0, 0.9, -1.0], [1.0, 0.0, -0.5]])
    result = sinkhorn(scores, epsilon=1e-3, iterations=3000)
    assert torch.isfinite(result).all()
    # The best one-to-one matching: 0-0, 1-1, 2-2.
    assert result.argmax(dim=1).tolist() == [0, 1, 2]


def test_sinkhorn_of_equal_scores_is_uniform() -> None:
    torch.testing.assert_close(sinkhorn(torch.ones(6, 3), epsilon=0.05), torch.full((6, 3), 1 / 3))


def test_sinkhorn_takes_bfloat16_and_no_gradient() -> None:
    result = sinkhorn(cosines(6, 3).to(torch.bfloat16).requires_grad_(), epsilon=0.05)
    assert result.dtype == torch.float32
    assert not result.requires_grad


@pytest.mark.parametrize(
    "wrong", [{"epsilon": 0.0}, {"iterations": 0}, {"scores": torch.zeros(3)}], ids=str
)
def test_sinkhorn_refuses(wrong: dict[str, object]) -> None:
    arguments = {"scores": torch.zeros(3, 3), "epsilon": 0.05} | wrong
    with pytest.raises(ValueError, match="sinkhorn needs"):
        sinkhorn(**arguments)  # type: ignore[arg-type]


def _sinkhorn_of_a_rank(rank: int, folder: Path, sizes: list[int]) -> None:
    scores = cosines(sum(sizes), 7).split(sizes)[rank]
    result = sinkhorn(scores, epsilon=0.05, group=distributed.group.WORLD)
    torch.save(result, folder / f"{rank}.pt")
    distributed.barrier()


def test_sinkhorn_over_processes_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    sizes = [5, 8]
    run_processes(2, _sinkhorn_of_a_rank, tmp_path, sizes)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    scores = cosines(sum(sizes), 7)
    whole = sinkhorn(scores, epsilon=0.05)
    torch.testing.assert_close(torch.cat(results), whole, rtol=1e-5, atol=1e-7)
    own = sinkhorn(scores[: sizes[0]], epsilon=0.05)
    assert not torch.allclose(results[0], own, atol=1e-3)


# Swapped prediction


def reference_loss(scores: list[Floats], assignments: list[Floats], temperature: float) -> float:
    total, pairs = 0.0, 0
    for i, q in enumerate(assignments):
        for v, s in enumerate(scores):
            if v == i:
                continue
            e = np.exp(s / temperature)
            p = e / e.sum(axis=1, keepdims=True)
            total += -(q * np.log(p)).sum(axis=1).mean()
            pairs += 1
    return total / pairs


@pytest.mark.parametrize(("large", "crops"), [(2, 2), (2, 6), (1, 3), (3, 3)])
def test_loss_is_the_papers(large: int, crops: int) -> None:
    scores = [cosines(6, 4, seed) for seed in range(crops)]
    assignments = [sinkhorn(one, epsilon=0.05) for one in scores[:large]]
    expected = reference_loss(
        [one.double().numpy() for one in scores], [one.double().numpy() for one in assignments], 0.1
    )
    assert swav_loss(scores, assignments, temperature=0.1).item() == pytest.approx(
        expected, rel=1e-5
    )
    warmer = swav_loss(scores, assignments, temperature=0.5).item()
    assert warmer == pytest.approx(
        reference_loss(
            [one.double().numpy() for one in scores],
            [one.double().numpy() for one in assignments],
            0.5,
        ),
        rel=1e-5,
    )


def test_a_crop_does_not_predict_itself() -> None:
    # Two crops that disagree: each one's own assignment would be predicted perfectly.
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert swav_loss([one, other], [one, other], temperature=0.1).item() == pytest.approx(
        10, abs=0.01
    )
    assert swav_loss([one, other], [other, one], temperature=0.1).item() == pytest.approx(
        0, abs=0.01
    )


def test_loss_of_no_idea_is_log_k() -> None:
    flat = [torch.zeros(5, 8)] * 3
    assert swav_loss(
        flat, [torch.full((5, 8), 1 / 8)] * 2, temperature=0.1
    ).item() == pytest.approx(np.log(8), rel=1e-6)


def test_gradients_reach_every_crops_scores_but_no_assignment() -> None:
    scores = [cosines(4, 3, seed).requires_grad_() for seed in range(3)]
    assignments = [torch.full((4, 3), 1 / 3, requires_grad=True) for _ in range(2)]
    swav_loss(scores, assignments, temperature=0.1).backward()  # type: ignore[no-untyped-call]
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in scores)
    assert all(one.grad is None for one in assignments)


@pytest.mark.parametrize(
    ("scores", "assignments", "message"),
    [(1, 1, "at least two"), (2, 0, "at least one"), (2, 3, "at least one")],
)
def test_loss_refuses_crops_that_make_no_pair(scores: int, assignments: int, message: str) -> None:
    matrix = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=message):
        swav_loss([matrix] * scores, [matrix] * assignments, temperature=0.1)


def test_loss_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        swav_loss([torch.zeros(2, 3), torch.zeros(2, 4)], [torch.zeros(2, 3)], temperature=0.1)


# Queue


def constant(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None].expand(-1, 2)


def test_queue_is_used_once_full_and_forgets_the_oldest() -> None:
    queue = PrototypeQueue(crops=2, length=5, width=2)
    prototypes = torch.tensor([[1.0, 0.0]])
    queue.push([constant(1, 2), constant(-1, -2)])
    queue.push([constant(3, 4), constant(-3, -4)])
    assert not queue.full
    assert queue.scores(prototypes) == [None, None]
    queue.push([constant(5, 6), constant(-5, -6)])
    assert queue.full
    first, second = queue.scores(prototypes)
    assert first is not None
    assert second is not None
    assert first[:, 0].tolist() == [5, 6, 3, 4, 1]
    assert second[:, 0].tolist() == [-5, -6, -3, -4, -1]


def test_queue_takes_a_batch_longer_than_itself() -> None:
    queue = PrototypeQueue(crops=1, length=2, width=2)
    queue.push([constant(1, 2, 3)])
    assert queue.full
    assert queue.embeddings[0, :, 0].tolist() == [1, 2]


def test_queue_travels_in_the_state_dict() -> None:
    queue = PrototypeQueue(crops=1, length=2, width=2)
    queue.push([constant(7, 8)])
    other = PrototypeQueue(crops=1, length=2, width=2)
    other.load_state_dict(queue.state_dict())
    assert other.full
    assert torch.equal(other.embeddings, queue.embeddings)
    assert all(isinstance(value, torch.Tensor) for value in queue.state_dict().values())


def test_queue_keeps_no_graph() -> None:
    queue = PrototypeQueue(crops=1, length=2, width=2)
    queue.push([torch.ones(2, 2, requires_grad=True)])
    (scores,) = queue.scores(torch.ones(3, 2, requires_grad=True))
    assert scores is not None
    assert not scores.requires_grad


def test_queue_refuses_other_embeddings() -> None:
    queue = PrototypeQueue(crops=2, length=5, width=2)
    with pytest.raises(ValueError, match="2 crops of width 2"):
        queue.push([constant(1)])
    with pytest.raises(ValueError, match="must be 1 or more"):
        PrototypeQueue(crops=0, length=5, width=2)


def test_assignments_are_balanced_over_batch_and_queue() -> None:
    batch, queued = cosines(4, 3, 1), cosines(9, 3, 2)
    expected = reference_sinkhorn(torch.cat([batch, queued]).double().numpy())[:4]
    np.testing.assert_allclose(
        assign(batch, queued, epsilon=0.05).numpy(), expected, rtol=2e-4, atol=1e-7
    )
    torch.testing.assert_close(assign(batch, epsilon=0.05), sinkhorn(batch, epsilon=0.05))
