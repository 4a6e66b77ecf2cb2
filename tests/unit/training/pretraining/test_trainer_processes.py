"""Two processes train, resume, stop and fail as one does."""

import resource
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from schemas.errors import SeerError, SettingsError
from seer_model.training.pretraining.monitor import CollapseMonitor
from seer_model.training.pretraining.recipe import Recipe
from tests.support.swav_training import (
    LARC,
    QUEUE,
    TINY,
    Interrupted,
    InterruptedStream,
    assert_equal_to_the_bit,
    changed,
    make_trainer,
    newest,
    run_processes,
    train,
    write_manifest,
)

torch.set_num_threads(1)

pytestmark = pytest.mark.slow

# Gradients are the same to five digits, but sooner or later rounding switches a ReLU on or off and
# so moves them by a thousandth. At higher rates that grows tenfold with every step: as much as it
# does in one process when a weight is changed by one in ten million.
ADAMW = changed(TINY, learning_rate=1e-4)
SLOW_LARC = changed(TINY, **LARC | {"learning_rate": 0.02})
RECIPES = {
    # Its first epoch has no queue.
    "larc and late queue": changed(
        SLOW_LARC, frozen_prototypes_epochs=1.25, **QUEUE | {"queue_from_epoch": 1}
    ),
    "adamw, queue and unreadable photos": changed(ADAMW, **QUEUE),
}
LATE, UNREADABLE = RECIPES
COLLAPSING = changed(TINY, epochs=2, warmup_epochs=0.25, learning_rate=1e-6)


def manifest_of(name: str, folder: Path) -> Path:
    return folder / ("bad manifest" if name == UNREADABLE else "manifest")


def told(work: Callable[[], Any]) -> str:
    """What an error says, or nothing."""
    try:
        work()
    except SeerError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def break_off_and_resume(recipe: Recipe, manifest: Path, checkpoints: Path) -> None:
    try:
        train(recipe, manifest, checkpoints, stream=InterruptedStream)
    except Interrupted:
        distributed.barrier()
    train(recipe, manifest, checkpoints, resume=True)


def collapse(manifest: Path, checkpoints: Path) -> None:
    trainer = make_trainer(COLLAPSING, manifest, checkpoints)
    with torch.no_grad():
        last = trainer.model.projection[-1]
        last.weight.mul_(1e-4)
        last.bias.fill_(1.0)
    trainer.run(lambda _: None)


def diverge(manifest: Path, checkpoints: Path) -> None:
    train(changed(TINY, learning_rate=1e30), manifest, checkpoints, checkpoint_steps=1)


def fill_disk(manifest: Path, checkpoints: Path) -> None:
    """Of one process: the one that writes."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
    try:
        train(TINY, manifest, checkpoints)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def gathered_report(rank: int) -> dict[str, Any]:
    monitor = CollapseMonitor(prototypes=10, width=6)
    assignments, features = batch()
    for part in (slice(0, 8), slice(8, 16)):
        rows, matrix = assignments[part].chunk(2)[rank], features[part].chunk(2)[rank]
        monitor.update(rows, matrix)
    return asdict(monitor.report(distributed.group.WORLD))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(16, 10, generator=generator)
    return torch.softmax(scores, dim=1), torch.randn(16, 6, generator=generator)


def work(rank: int, folder: Path) -> None:
    """Everything that two processes have to do, because to start them takes so long."""
    results: dict[str, Any] = {
        name: [
            asdict(one) for one in train(recipe, manifest_of(name, folder), folder / f"{name}, two")
        ]
        for name, recipe in RECIPES.items()
    }
    manifest = folder / "manifest"
    break_off_and_resume(RECIPES[UNREADABLE], folder / "bad manifest", folder / "resumed")
    trainer = make_trainer(RECIPES[LATE], manifest, folder / f"{LATE}, one")
    results["another number"] = told(trainer.resume)
    trainer = make_trainer(RECIPES[LATE], manifest, folder / f"{LATE}, two")
    results["no resume"] = told(lambda: trainer.run(lambda _: None))
    results["collapse"] = told(lambda: collapse(manifest, folder / "collapsed"))
    results["divergence"] = told(lambda: diverge(manifest, folder / "diverged"))
    results["full disk"] = told(lambda: fill_disk(manifest, folder / "full disk"))
    results["odd batch"] = told(
        lambda: make_trainer(changed(TINY, batch_size=7), manifest, folder / "odd")
    )
    results["monitor"] = gathered_report(rank)
    torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what one process and what two have left."""
    folder = tmp_path_factory.mktemp("processes")
    write_manifest(folder / "manifest")
    write_manifest(folder / "bad manifest", bad=(1, 2, 3, 9, 17, 30))
    alone = {
        name: [
            asdict(one) for one in train(recipe, manifest_of(name, folder), folder / f"{name}, one")
        ]
        for name, recipe in RECIPES.items()
    }
    torch.save(alone, folder / "alone.pt")
    run_processes(2, work, folder)
    return folder


@pytest.fixture
def results(folder: Path) -> list[dict[str, Any]]:
    """What each process tells."""
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_train_as_one_does(
    name: str, folder: Path, results: list[dict[str, Any]]
) -> None:
    alone = torch.load(folder / "alone.pt", weights_only=True)[name]
    first, second = (without_speed(result[name]) for result in results)
    assert first == second
    assert len(first) == len(alone) == 2
    for together, one in zip(first, without_speed(alone), strict=True):
        assert together["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert together["collapse"] == pytest.approx(one["collapse"], rel=1e-3)
        assert together["unreadable"] == one["unreadable"]
        assert (one["unreadable"] > 0) == (name == UNREADABLE)


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_end_where_one_does(name: str, folder: Path) -> None:
    trainer = make_trainer(RECIPES[name], folder / "manifest", folder / "unused")
    begin = {f"model.{key}": tensor for key, tensor in trainer.model.state_dict().items()}
    one, two = newest(folder / f"{name}, one"), newest(folder / f"{name}, two")
    assert {k: one.tensors[k].shape for k in begin} == {k: two.tensors[k].shape for k in begin}
    apart, moved = torch.zeros(()), torch.zeros(())
    for key, tensor in begin.items():
        if "running" in key or not tensor.is_floating_point():
            torch.testing.assert_close(two.tensors[key], one.tensors[key], rtol=1e-3, atol=1e-3)
        else:
            apart += (two.tensors[key] - one.tensors[key]).square().sum()
            moved += (one.tensors[key] - tensor).square().sum()
    assert apart.sqrt() < 0.02 * moved.sqrt()


def test_two_processes_remember_the_photos_that_one_does(folder: Path) -> None:
    one, two = (newest(folder / f"{LATE}, {n}").tensors for n in ("one", "two"))
    (alone,) = (tensor for key, tensor in one.items() if key.endswith("queues.embeddings.0"))
    halves = [tensor for key, tensor in sorted(two.items()) if "queues.embeddings" in key]
    assert [tuple(half.shape) for half in halves] == [(2, 8, 16)] * 2
    # Newest batch first, in each; of a batch of eight each process holds four.
    batches = [
        part
        for four in zip(*(half.split(4, dim=1) for half in halves), strict=True)
        for part in four
    ]
    torch.testing.assert_close(torch.cat(batches, dim=1), alone, rtol=1e-2, atol=1e-2)


def test_two_processes_go_on_as_if_they_had_never_stopped(folder: Path) -> None:
    assert_equal_to_the_bit(folder / "resumed", folder / f"{UNREADABLE}, two")


def test_two_processes_report_on_a_collapse_as_one_does(results: list[dict[str, Any]]) -> None:
    monitor = CollapseMonitor(prototypes=10, width=6)
    monitor.update(*batch())
    assert results[0]["monitor"] == results[1]["monitor"]
    assert results[0]["monitor"] == pytest.approx(asdict(monitor.report()))
    assert results[0]["monitor"]["photos"] == 16


def test_two_processes_stop_together(folder: Path, results: list[dict[str, Any]]) -> None:
    for case, error in (
        ("collapse", "TrainingCollapsed: epoch 0: Features collapsed"),
        ("divergence", "TrainingCollapsed: step 3: the training diverged"),
        ("no resume", f"SettingsError: {folder / f'{LATE}, two'}: holds checkpoints of an earlier"),
        ("odd batch", "SettingsError: 2 processes cannot share a batch of 7"),
    ):
        assert results[0][case].startswith(error)
        assert results[1][case] == results[0][case]
    assert newest(folder / "collapsed").step == 4
    assert newest(folder / "diverged").step == 2


def test_all_processes_hear_that_a_checkpoint_cannot_be_written(
    folder: Path, results: list[dict[str, Any]]
) -> None:
    full = folder / "full disk"
    first, second = (result["full disk"] for result in results)
    assert first.startswith(f"SettingsError: {full / 'step-00000002'}: the checkpoint cannot be wr")
    assert second == f"SettingsError: {full}: the first process cannot write a checkpoint"


def test_a_checkpoint_of_another_number_of_processes_is_refused(
    folder: Path, results: list[dict[str, Any]]
) -> None:
    for result in results:
        assert "was made with another recipe, manifest, number of pro" in result["another number"]
    trainer = make_trainer(RECIPES[LATE], folder / "manifest", folder / f"{LATE}, two")
    with pytest.raises(SettingsError, match=r"step-00000008: .*, number of processes or other"):
        trainer.resume()


def without_speed(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in one.items() if k != "photos_per_second"} for one in reports]
