import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from schemas.errors import SettingsError
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.weights import random_backbone
from seer_model.training.pretraining.crops import CropSpec, MultiCrop
from seer_model.training.pretraining.loss import assign, sinkhorn, swav_loss
from seer_model.training.pretraining.model import SwavModel, SwavOutput
from seer_model.training.pretraining.monitor import CollapseMonitor, CollapseReport
from seer_model.training.pretraining.optim import adamw, lars

TRUNK = "regnety_002"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def tiny(*, checkpoint_trunk: bool = False) -> SwavModel:
    return SwavModel(TRUNK, projection=(32, 16), prototypes=12, checkpoint_trunk=checkpoint_trunk)


def crops() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(4, 3, size, size, generator=generator) for size in (32, 24, 32, 24, 24)]


# Model


def test_output_keeps_the_crops_order_and_unit_length() -> None:
    model = tiny()
    sizes: list[tuple[int, ...]] = []
    model.trunk.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape)))
    output = model(crops())
    assert sizes == [(8, 3, 32, 32), (12, 3, 24, 24)]
    assert [tuple(one.shape) for one in output.features] == [(4, 368)] * 5
    assert [tuple(one.shape) for one in output.embeddings] == [(4, 16)] * 5
    assert [tuple(one.shape) for one in output.scores] == [(4, 12)] * 5
    for embeddings, scores in zip(output.embeddings, output.scores, strict=True):
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))
        torch.testing.assert_close(scores, embeddings @ model.prototypes.weight.T)
    model.eval()
    together, alone = model(crops()), [model([crop]) for crop in crops()]
    for index, one in enumerate(alone):
        torch.testing.assert_close(together.scores[index], one.scores[0], atol=1e-5, rtol=1e-4)


def test_projection_has_batch_normalisation_and_relu_but_at_its_end() -> None:
    kinds = [
        type(layer) for layer in SwavModel(TRUNK, projection=(8, 8, 4), prototypes=5).projection
    ]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    last = SwavModel(TRUNK, projection=(4,), prototypes=5).projection
    assert [type(layer) for layer in last] == [nn.Linear]


def test_scores_are_float32_under_autocast() -> None:
    model = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(crops())
    assert output.scores[0].dtype == torch.float32
    assert output.embeddings[0].dtype == torch.float32
    torch.testing.assert_close(output.embeddings[0].norm(dim=1), torch.ones(4))


def test_the_trunk_is_a_backbones() -> None:
    backbone = random_backbone(TRUNK)
    model = tiny()
    model.trunk.load_state_dict(dict(backbone.weights), strict=True)


def test_prototypes_come_back_to_the_unit_sphere() -> None:
    model = tiny()
    torch.testing.assert_close(model.prototypes.weight.norm(dim=1), torch.ones(12))
    with torch.no_grad():
        model.prototypes.weight.mul_(torch.rand(12, 1) + 0.5)
    before = model.prototypes.weight.detach().clone()
    model.normalise_prototypes()
    after = model.prototypes.weight.detach()
    torch.testing.assert_close(after.norm(dim=1), torch.ones(12))
    torch.testing.assert_close(functional.cosine_similarity(before, after), torch.ones(12))


@pytest.mark.parametrize("kind", ["larc", "adamw"])
def test_prototypes_without_gradients_stay(kind: str) -> None:
    model = tiny()
    make = lars if kind == "larc" else adamw
    optimiser = make(model, lr=0.5, weight_decay=0.1)
    for step in range(2):
        before = model.prototypes.weight.detach().clone()
        projection = model.projection[0].weight.detach().clone()
        optimiser.zero_grad()
        output = model(crops())
        swav_loss(
            output.scores, [assign(output.scores[0], epsilon=0.05)], temperature=0.1
        ).backward()  # type: ignore[no-untyped-call]
        assert model.prototypes.weight.grad is not None
        if step == 0:
            model.drop_prototype_gradients()
        optimiser.step()
        assert torch.equal(model.prototypes.weight.detach(), before) == (step == 0)
        assert not torch.equal(model.projection[0].weight.detach(), projection)


def test_checkpointing_the_trunk_changes_no_gradient() -> None:
    gradients = []
    for checkpoint_trunk in (False, True):
        torch.manual_seed(0)
        model = tiny(checkpoint_trunk=checkpoint_trunk)
        output = model(crops())
        swav_loss(
            output.scores, [sinkhorn(output.scores[0], epsilon=0.05)], temperature=0.1
        ).backward()  # type: ignore[no-untyped-call]
        gradients.append([one.grad for one in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_impossible_models_are_refused() -> None:
    with pytest.raises(SettingsError, match="resnet50: not a RegNetY"):
        SwavModel("resnet50", projection=(8,), prototypes=5)
    for projection, prototypes in (((), 5), ((8, 0), 5), ((8,), 0)):
        with pytest.raises(ValueError, match="a projection needs widths"):
            SwavModel(TRUNK, projection=projection, prototypes=prototypes)
    with pytest.raises(ValueError, match="same number of photos"):
        tiny()([torch.zeros(2, 3, 32, 32), torch.zeros(3, 3, 32, 32)])


# Monitor


def collapse_report(assignments: torch.Tensor, features: torch.Tensor) -> CollapseReport:
    """The report on a single batch."""
    monitor = CollapseMonitor(prototypes=assignments.shape[1], width=features.shape[1])
    monitor.update(assignments, features)
    return monitor.report()


def unit(rows: int, width: int) -> torch.Tensor:
    return functional.normalize(torch.randn(rows, width), dim=1)


def test_healthy_batches_raise_no_alarm() -> None:
    features = unit(64, 32)
    report = collapse_report(sinkhorn(features @ unit(40, 32).T, epsilon=0.05), features)
    assert report.explain() is None
    assert report.photos == 64
    assert report.feature_spread == pytest.approx(1, abs=0.05)
    assert report.assignment_entropy > 0.95
    assert report.prototypes_used > 0.5
    assert report.assignment_information > 0.1


def test_report_is_what_its_definition_says() -> None:
    assignments = torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    features = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    report = collapse_report(assignments, features)
    log = torch.log(torch.tensor(4.0)).item()
    mean = -(0.75 * torch.log(torch.tensor(0.75)) + 0.25 * torch.log(torch.tensor(0.25))).item()
    assert report.prototypes_used == 0.5
    assert report.assignment_entropy == pytest.approx(mean / log)
    assert report.assignment_information == pytest.approx((mean - 0.5 * log / 2) / log)
    assert report.feature_spread == pytest.approx(0.5 * 2**0.5)


def test_an_epoch_is_reported_as_one_batch() -> None:
    features, prototypes = unit(48, 16), unit(10, 16)
    assignments = torch.softmax(features @ prototypes.T / 0.1, dim=1)
    monitor = CollapseMonitor(prototypes=10, width=16)
    for rows, matrix in zip(assignments.split(13), features.split(13), strict=True):
        monitor.update(rows, matrix)
    whole, pieces = collapse_report(assignments, features), monitor.report()
    assert pieces.photos == whole.photos
    assert pieces.prototypes_used == whole.prototypes_used
    assert pieces.assignment_entropy == pytest.approx(whole.assignment_entropy)
    assert pieces.feature_spread == pytest.approx(whole.feature_spread)


def test_equal_features_are_flagged() -> None:
    features = unit(1, 32).expand(64, 32) + 0.001 * torch.randn(64, 32)
    report = collapse_report(sinkhorn(features @ unit(40, 32).T, epsilon=0.05), features)
    assert "Features collapsed" in str(report.explain())
    assert report.assignment_entropy > 0.95  # Sinkhorn hides it there.
    assert report.assignment_information < 0.01


def test_equal_assignments_are_flagged() -> None:
    report = collapse_report(torch.full((64, 40), 1 / 40), unit(64, 32))
    assert "nearly the same for every photo" in str(report.explain())


def test_few_prototypes_are_flagged() -> None:
    to_few = torch.zeros(64, 400)
    to_few[:32, 0] = to_few[32:, 1] = 1.0
    assert "few prototypes" in str(collapse_report(to_few, unit(64, 32)).explain())
    report = CollapseReport(
        photos=10_000,
        prototypes_used=0.01,
        assignment_entropy=0.9,
        assignment_information=0.5,
        feature_spread=1.0,
    )
    assert "1.0% of those" in str(report.explain())


def test_what_is_not_finite_is_flagged() -> None:
    features = torch.full((8, 4), torch.nan)
    assert "diverged" in str(collapse_report(torch.softmax(features, dim=1), features).explain())


def test_nothing_cannot_be_reported_on() -> None:
    with pytest.raises(ValueError, match="nothing to report"):
        CollapseMonitor(prototypes=3, width=2).report()


# All together


def four_kinds() -> torch.Tensor:
    """16 photos, uint8 (16, 48, 48, 3): stripes of two directions, a disc, a square, in noise."""
    y, x = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    disc = (x - 24) ** 2 + (y - 24) ** 2 < 200
    square = ((x // 6 + y // 6) % 2).bool()
    shapes = torch.stack([(x // 4 % 2).bool(), (y // 4 % 2).bool(), disc, square])
    colours = torch.tensor([[220, 40, 40], [40, 200, 60], [50, 60, 220], [230, 220, 60]])
    generator = torch.Generator().manual_seed(1)
    photos = shapes[:, :, :, None] * colours[:, None, None]
    photos = photos.repeat_interleave(4, dim=0)
    photos = photos + torch.randint(0, 30, photos.shape, generator=generator)
    return photos.clamp(max=255).to(torch.uint8)


@pytest.mark.parametrize(("kind", "steps"), [("adamw", 32), ("larc", 36)])
def test_a_tiny_run_learns_and_does_not_collapse(kind: str, steps: int) -> None:
    model = SwavModel(TRUNK, projection=(64, 16), prototypes=8)
    optimiser = (
        adamw(model, lr=5e-3, weight_decay=1e-4)
        if kind == "adamw"
        else lars(model, lr=1.0, weight_decay=1e-6)
    )
    augment = MultiCrop(
        (CropSpec(32, 2, (0.3, 1.0)), CropSpec(24, 2, (0.1, 0.3))),
        preprocessing=Preprocessing(),
        colour_strength=0.0,
        grey_probability=0.0,
        blur_probability=0.0,
    )
    photos, generator = four_kinds(), torch.Generator().manual_seed(0)
    losses: list[float] = []
    for step in range(steps):
        model.normalise_prototypes()
        output: SwavOutput = model(augment(photos, generator))
        assignments = [assign(one, epsilon=0.05) for one in output.scores[:2]]
        loss = swav_loss(output.scores, assignments, temperature=0.1)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if step < 3:
            model.drop_prototype_gradients()
        optimiser.step()
        losses.append(loss.item())
    # At log(K) nothing is predicted: it has to fall below that, not only from where it began.
    assert sum(losses[-5:]) / 5 < 0.92 * math.log(8) < losses[0]
    assert collapse_report(assignments[0], output.embeddings[0].detach()).explain() is None
    # Photos of one kind are assigned alike, photos of two are not.
    unit_rows = functional.normalize(assignments[0], dim=1)
    alike = unit_rows @ unit_rows.T
    one_kind = torch.arange(16)[:, None] // 4 == torch.arange(16) // 4
    assert alike[one_kind].mean() > 1.5 * alike[~one_kind].mean()


def test_a_collapsed_model_is_flagged() -> None:
    model = tiny()
    with torch.no_grad():
        model.projection[-1].weight.mul_(1e-4)
        model.projection[-1].bias.fill_(1.0)
    output = model(crops())
    report = collapse_report(assign(output.scores[0], epsilon=0.05), output.embeddings[0].detach())
    assert "Features collapsed" in str(report.explain())
