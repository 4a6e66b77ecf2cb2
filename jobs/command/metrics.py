"""A run's figures as Prometheus text, for the textfile collector of node_exporter.

Names are `seer_JOB_FIGURE`, those of the report with the job in front:

- a number is a gauge, a boolean is 1 or 0;
- a mapping is a gauge with a sample for each of its numbers, whose name is the label `key`
  (`seer_categorize_listings_reject_reasons{key="truncated"}`);
- a mapping named `backbone=DIGEST` gives its numbers the label `backbone`
  (`seer_maintain_embeddings_rows_after{backbone="DIGEST"}`);
- texts are labels of `seer_JOB_info`; lists are in the report alone.

`seer_JOB_last_run_…` and `seer_JOB_last_success_…` are of the run itself. A run that fails before
its report leaves the figures and the last success of earlier runs, which it reads from the file.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import write_to_textfile
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_fd_to_metric_families
from prometheus_client.registry import Collector

from jobs.command.job_run import JobRun

__all__ = ["write_metrics"]


def write_metrics(run: JobRun, path: Path) -> None:
    """Replace the file by the metrics of a run that has ended, atomically.

    Raises:
        OSError: It cannot be written; it is as it was.
    """
    job = f"seer_{run.job}"
    metrics = {metric.name: metric for metric in _read(path)}
    if run.figures:
        last = (f"{job}_last_run_", f"{job}_last_success_")
        metrics = {name: metric for name, metric in metrics.items() if name.startswith(last)}
    for metric in (*_figures(job, run.figures), *_ending(job, run)):
        metrics[metric.name] = metric
    write_to_textfile(str(path), _Metrics(metrics.values()))


class _Metrics(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _read(path: Path) -> list[Metric]:
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            return list(text_fd_to_metric_families(file))
    except (FileNotFoundError, ValueError):  # None yet, or not of this job's making.
        return []


def _ending(job: str, run: JobRun) -> Iterator[Metric]:
    assert run.ending is not None  # noqa: S101
    now = datetime.now(UTC)
    yield _gauge(f"{job}_last_run_timestamp_seconds", "When the last run ended.", now.timestamp())
    yield _gauge(
        f"{job}_last_run_duration_seconds",
        "How long the last run took.",
        (now - run.started_at).total_seconds(),
    )
    code = run.ending.exit_code
    yield _gauge(f"{job}_last_run_exit_code", "Exit code of the last run; 0 is success.", code)
    yield _gauge(
        f"{job}_last_run_lineage_events_lost",
        "Events of the last run that no OpenLineage backend took.",
        len(run.lost),
    )
    if code == 0:
        yield _gauge(
            f"{job}_last_success_timestamp_seconds",
            "When the last run that succeeded ended.",
            now.timestamp(),
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _figures(job: str, figures: Mapping[str, Any]) -> Iterator[Metric]:
    found: dict[str, Metric] = {}
    for figure, labels, value in _samples(figures):
        name = f"{job}_{_identifier(figure)}"
        metric = found.setdefault(name, Metric(name, f"Figure {figure} of the report.", "gauge"))
        metric.add_sample(name, labels, value)
    yield from found.values()
    texts = {_identifier(name): text for name, text in figures.items() if isinstance(text, str)}
    if texts:
        info = Metric(f"{job}_info", "Texts of the report.", "gauge")
        info.add_sample(info.name, texts, 1)
        yield info


def _samples(
    figures: Mapping[str, Any], **labels: str
) -> Iterator[tuple[str, dict[str, str], float]]:
    """Names of figures, labels and values."""
    for name, value in figures.items():
        if isinstance(value, int | float):
            yield name, labels, float(value)
        elif isinstance(value, Mapping):
            label, named, of = name.partition("=")
            if named:
                yield from _samples(value, **labels, **{_identifier(label): of})
            else:
                yield from ((name, {**labels, "key": key}, n) for key, n in _numbers(value))


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)
        elif isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name, flags=re.ASCII)
