"""Whether the promise of precision holds, by simulation, for 20 to 5,000 validation listings.

    .venv/bin/python -m benchmarks.precision_promise

Draws listings whose true probabilities are known, calibrates on some, and looks up the true
precision of what would be assigned. For the present rule (`safe_threshold`) and the former one (the
lowest score whose Wilson bound of 90 % meets the target), for

- a single level, scores that are the true probabilities, of several Beta distributions;
- the same, overconfident: twice the log-odds, so that a score of 0.9 stands for 0.75;
- a tree of two levels, four leaves under each of four parents, probabilities of a Dirichlet
  distribution, through all of `calibrate`, with the logits halved, as they are, and doubled.

Prints a Markdown table and writes JSON. *Broken*: the share of all runs with a level whose true
precision is below the target, which may be 0.1. *Coverage*: of that of the lowest safe threshold,
which only somebody who knows the probabilities can choose; for the tree, of all listings.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import beta

from schemas.taxonomy import Category, Taxonomy
from seer_model.categorizer.calibration import ERROR, CalibrationSample, calibrate
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.safe_threshold import safe_threshold
from seer_model.categorizer.thresholds import Calibration, class_probabilities

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Rule = Callable[[Floats, Flags], float | None]

TARGET = 0.9
SIZES = (20, 50, 100, 200, 500, 1_000, 5_000)
SHAPES = {
    "mostly sure": (9, 1),
    "sure": (5, 1),
    "mixed": (1, 0.5),
    "unsure": (8, 2),
    "weak": (2, 2),
}
MISLABELLED = 0.02
MANY = 20_000
COLUMNS = ("runs", "found", "found_before", "broken", "broken_before", "coverage")


def present(scores: Floats, right: Flags) -> float | None:
    """Choose as `calibrate` does at a single level."""
    return safe_threshold(scores, right, None, TARGET, ERROR)


def former(scores: Floats, right: Flags) -> float | None:
    """Choose the lowest score whose one-sided Wilson bound of 90 % meets the target."""
    if not len(scores):
        return None
    order = np.argsort(-scores, kind="stable")
    total, z2 = np.arange(1, len(scores) + 1), 1.2816**2
    share = np.cumsum(right[order]) / total
    spread = np.sqrt(z2 * share * (1 - share) / total + z2**2 / (4 * total**2))
    safe = np.flatnonzero((share + z2 / (2 * total) - spread) / (1 + z2 / total) >= TARGET)
    return float(scores[order[safe[-1]]]) if len(safe) else None


def single_level(
    shape: tuple[float, float], rows: int, runs: int, *, sharpness: float, mislabelled: float = 0.0
) -> Floats:
    """Simulate a single level, with a share of wrong labels of which the scores know nothing.

    Returns:
        float64, (runs, 5): found, found before, broken, broken before, coverage.
    """
    grid = expit(np.linspace(-12, 12, 20_001))
    admitted = beta.sf(grid, *shape)
    mean = shape[0] / sum(shape)
    precision = mean * beta.sf(grid, shape[0] + 1, shape[1]) / np.maximum(admitted, 1e-300)
    precision *= 1 - mislabelled
    safe = np.flatnonzero((precision >= TARGET) & (admitted > 0))
    best = float(admitted[safe[0]]) if len(safe) else 0.0
    rng, results = np.random.default_rng(rows), np.zeros((runs, 5))
    for row in results:
        truth = rng.beta(*shape, rows)
        right = rng.random(rows) < truth * (1 - mislabelled)
        scores = expit(sharpness * logit(truth))
        for i, rule in enumerate((present, former)):
            threshold = rule(scores, right)
            if threshold is not None:
                true_threshold = expit(logit(threshold) / sharpness)
                row[i] = 1
                row[2 + i] = np.interp(true_threshold, grid, precision) < TARGET
                if rule is present:
                    row[4] = np.interp(true_threshold, grid, admitted) / best
    return results


def tree_of_two_levels() -> ClassTree:
    """Four leaves under each of four parents."""
    parents = [Category(f"{i}", (f"{i}",), None) for i in range(4)]
    leaves = [Category(f"{i}-{j}", (f"{i}", f"{j}"), f"{i}") for i in range(4) for j in range(4)]
    return ClassTree(Taxonomy([*parents, *leaves]), [leaf.category_id for leaf in leaves])


def two_levels(sharpness: float, rows: int, runs: int) -> Floats:
    """Simulate a tree of two levels; returns what `single_level` does."""
    tree = tree_of_two_levels()
    rng, results = np.random.default_rng(rows), np.zeros((runs, 5))

    def draw(count: int) -> CalibrationSample:
        # A parent that is likely, and a leaf of it that is less so.
        parents = rng.dirichlet(np.full(4, 0.1), count)
        leaves = parents[:, :, None] * rng.dirichlet(np.full(4, 0.2), (count, 4))
        truth = leaves.reshape(count, 16)
        drawn = (rng.random((count, 1)) > truth.cumsum(1)).sum(1).clip(max=15)
        logits = (sharpness * np.log(truth + 1e-12)).astype(np.float32)
        return CalibrationSample(logits, [tree.classes[i] for i in drawn])

    many = draw(MANY)
    for row in results:
        sample = draw(rows)
        now = calibrate(sample, tree, TARGET)
        for i, calibration in enumerate((now, formerly(sample, tree, now.temperature))):
            precisions, coverage = assigned(many, tree, calibration)
            row[i] = len(precisions) > 0
            row[2 + i] = any(precision < TARGET for precision in precisions)
            if i == 0:
                row[4] = coverage
    return results


def formerly(sample: CalibrationSample, tree: ClassTree, temperature: float) -> Calibration:
    """Calibrate as before: the former rule at every level, the deepest first."""
    thresholds: list[float | None] = []
    is_open = np.ones(len(sample.labels), np.bool_)
    for scores, right in reversed(list(levels(sample, tree, temperature))):
        threshold = former(scores[is_open], right[is_open])
        thresholds.append(threshold)
        if threshold is not None:
            is_open &= scores < threshold
    return Calibration(temperature, tuple(reversed(thresholds)), TARGET)


def levels(
    sample: CalibrationSample, tree: ClassTree, temperature: float
) -> list[tuple[Floats, Flags]]:
    """Score of the best category of each level, and whether it is the label's."""
    leaves = np.array([tree.position[label] for label in sample.labels])
    true = (leaves // 4, leaves)
    best = tree.best(class_probabilities(sample.logits, temperature))
    return [(found.score, found.position == y) for found, y in zip(best, true, strict=True)]


def assigned(
    sample: CalibrationSample, tree: ClassTree, calibration: Calibration
) -> tuple[list[float], float]:
    """Precision of each level that assigns anything, and the share assigned of all."""
    precisions = []
    is_open = np.ones(len(sample.labels), np.bool_)
    found = levels(sample, tree, calibration.temperature)
    for (scores, right), threshold in reversed(
        list(zip(found, calibration.thresholds, strict=True))
    ):
        if threshold is not None and (taken := is_open & (scores >= threshold)).any():
            precisions.append(float(right[taken].mean()))
            is_open &= ~taken
    return precisions, 1 - float(is_open.mean())


def measure(runs: int) -> list[dict[str, Any]]:
    """Run all simulations."""
    results = []
    for rows in SIZES:
        for name, shape in SHAPES.items():
            for how, sharpness in (("calibrated", 1.0), ("overconfident", 2.0)):
                found = single_level(shape, rows, runs, sharpness=sharpness)
                results.append(record(f"one level, {name}, {how}", rows, found))
            found = single_level(shape, rows, runs, sharpness=1.0, mislabelled=MISLABELLED)
            results.append(record(f"wrong labels, {name}", rows, found))
        for how, sharpness in (("halved", 0.5), ("calibrated", 1.0), ("doubled", 2.0)):
            found = two_levels(sharpness, rows, max(1, runs // 4))
            results.append(record(f"two levels, {how}", rows, found))
    return results


def record(scores: str, rows: int, found: Floats) -> dict[str, Any]:
    """Name the means of a simulation's runs."""
    means = dict(zip(COLUMNS[1:], found.mean(axis=0).tolist(), strict=True))
    return {"scores": scores, "listings": rows, "runs": len(found), **means}


def table(results: list[dict[str, Any]]) -> str:
    """Format the results by number of listings, over all scores, as Markdown."""
    lines = [
        "| scores | listings | found | before | broken, worst | before | coverage |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for kind in ("one level", "wrong labels", "two levels"):
        for rows in SIZES:
            group = [r for r in results if r["listings"] == rows and r["scores"].startswith(kind)]
            means = {name: np.mean([r[name] for r in group]) for name in COLUMNS}
            worst = {name: max(r[name] for r in group) for name in COLUMNS}
            cells = (
                *(means["found"], means["found_before"]),
                *(worst["broken"], worst["broken_before"], means["coverage"]),
            )
            lines.append(f"| {kind} | {rows} | " + " | ".join(f"{c:.2f}" for c in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=400, help="of each kind of scores")
    parser.add_argument(
        "--results", type=Path, default=Path("benchmarks/results/precision_promise.json")
    )
    arguments = parser.parse_args()
    results = measure(arguments.runs)
    markdown = table(results)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"target": TARGET, "results": results, "markdown": markdown}, indent=1)
    arguments.results.write_text(text + "\n", encoding="utf-8")
    print(markdown)
    print(f"\nWritten to {arguments.results}")


if __name__ == "__main__":
    main()
