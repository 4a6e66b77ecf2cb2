"""Tell an OpenLineage backend of a run: START, then COMPLETE, FAIL or ABORT, with its datasets.

The client's variables say where to (`OPENLINEAGE_URL`, `OPENLINEAGE_CONFIG`), and
`OPENLINEAGE_NAMESPACE` the namespace of the jobs. The parent is what Airflow's provider passes to
spark-submit (`spark.openlineage.parentRunId` and so on), else the variable `OPENLINEAGE_PARENT_ID`
(`namespace/name/run`). A backend that does not answer costs a few seconds and a warning.

Names are those of OpenLineage's naming specification where it has one: `file` or `s3://bucket` and
a path, the catalog's address and `namespace.table`. A model is `models:/name` of its MLflow.
"""

import logging
import os
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from openlineage.client import OpenLineageClient, set_producer
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    base_subset_dataset,
    dataset_version_dataset,
    error_message_run,
    input_statistics_input_dataset,
    job_type_job,
    nominal_time_run,
    output_statistics_output_dataset,
    parent_run,
    schema_dataset,
    tags_run,
)
from openlineage.client.uuid import generate_new_uuid
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from jobs.command.job_run import Dataset, JobRun
from schemas.errors import without_passwords
from seer_model import __version__
from seer_model.tracking import runs

__all__ = ["Lineage"]

log = logging.getLogger(__name__)

_SECONDS_TO_ANSWER = 5.0
_PRODUCER = f"urn:seer-categories:{__version__}"
_SOURCE = "SEER_CATEGORIES"
_ADDRESS = re.compile("([A-Za-z][A-Za-z0-9+.-]+):(?://([^/]*))?(/.*|)", re.DOTALL)
_SAME_STORE = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "abfss"}


class Lineage:
    """The events of one run; no method raises an error, which is added to the run's `lost`."""

    def __init__(self) -> None:
        self._run_id = str(generate_new_uuid())
        self._client: OpenLineageClient | None = None
        self._parent: parent_run.ParentRunFacet | None = None

    @classmethod
    def start(cls, run: JobRun) -> "Lineage":
        """Tell that a run starts."""
        lineage = cls()
        try:
            # Each retry would be a warning of its own.
            for noisy in ("openlineage", "urllib3"):
                logging.getLogger(noisy).setLevel(logging.ERROR)
            set_producer(_PRODUCER)
            lineage._client = OpenLineageClient()
            lineage._parent = _parent()
        except Exception as error:
            _lose(run, "START", error)
        else:
            lineage._tell(run, RunState.START)
        return lineage

    def end(self, run: JobRun) -> None:
        """Tell how it ended, and what it read and wrote."""
        assert run.ending is not None  # noqa: S101
        endings = {0: RunState.COMPLETE, 130: RunState.ABORT}
        self._tell(run, endings.get(run.ending.exit_code, RunState.FAIL))

    def _tell(self, run: JobRun, state: RunState) -> None:
        client = self._client
        if client is None:
            return
        failures: list[Exception] = []

        def emit(event: RunEvent) -> None:
            try:
                client.emit(event)
            except Exception as error:
                failures.append(error)

        try:
            event = _event(run, self._run_id, self._parent, state)
            thread = threading.Thread(target=emit, args=[event], name="lineage", daemon=True)
            thread.start()
            thread.join(_SECONDS_TO_ANSWER)
            if thread.is_alive():
                failures.append(TimeoutError(f"no answer within {_SECONDS_TO_ANSWER:.0f} s"))
        except Exception as error:
            failures.append(error)
        if failures:
            _lose(run, state.value, failures[0])


def _lose(run: JobRun, event: str, error: Exception) -> None:
    run.lost.append(f"{event}: {runs.one_line(error)}")
    if len(run.lost) == 1:
        log.warning("OpenLineage was not told of the run: %s", run.lost[0])


def _event(
    run: JobRun, run_id: str, parent: parent_run.ParentRunFacet | None, state: RunState
) -> RunEvent:
    kind = job_type_job.JobTypeJobFacet("BATCH", _SOURCE, jobType="JOB")
    return RunEvent(
        eventType=state,
        eventTime=datetime.now(UTC).isoformat(),
        run=Run(run_id, facets=_run_facets(run, parent)),
        job=Job(_namespace(), run.job, facets={"jobType": kind}),
        inputs=[_input(dataset) for dataset in run.inputs],
        outputs=[_output(dataset) for dataset in run.outputs],
    )


def _namespace() -> str:
    return os.environ.get("OPENLINEAGE_NAMESPACE") or "default"


def _run_facets(run: JobRun, parent: parent_run.ParentRunFacet | None) -> dict[str, Any]:
    facets: dict[str, Any] = {}
    if parent is not None:
        facets["parent"] = parent
    if run.ds is not None:
        facets["nominalTime"] = nominal_time_run.NominalTimeRunFacet(f"{run.ds}T00:00:00Z")
    texts = {name: text for name, text in run.figures.items() if isinstance(text, str)}
    if texts:
        tags = [tags_run.TagsRunFacetFields(name, text, _SOURCE) for name, text in texts.items()]
        facets["tags"] = tags_run.TagsRunFacet(tags)
    if run.ending is not None and run.ending.message is not None:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            run.ending.message, "PYTHON", run.ending.trace
        )
    return facets


def _parent() -> parent_run.ParentRunFacet | None:
    given = _submitted("spark.openlineage.")
    if "parentRunId" in given:
        root = None
        if "rootParentRunId" in given:
            root = parent_run.Root(
                parent_run.RootRun(given["rootParentRunId"]),
                parent_run.RootJob(given["rootParentJobNamespace"], given["rootParentJobName"]),
            )
        return parent_run.ParentRunFacet(
            parent_run.Run(given["parentRunId"]),
            parent_run.Job(given["parentJobNamespace"], given["parentJobName"]),
            root,
        )
    if parent := os.environ.get("OPENLINEAGE_PARENT_ID"):
        namespace, name, run_id = parent.rsplit("/", 2)
        return parent_run.ParentRunFacet(parent_run.Run(run_id), parent_run.Job(namespace, name))
    return None


def _submitted(prefix: str) -> dict[str, str]:
    """Spark's properties of that prefix, without it, where spark-submit started this process."""
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return {}
    SparkContext._ensure_initialized()
    properties = SparkConf().getAll()
    return {k.removeprefix(prefix): v for k, v in properties if k.startswith(prefix)}


def _input(dataset: Dataset) -> InputDataset:
    facets: dict[str, Any] = {}
    if dataset.rows is not None:
        facets["inputStatistics"] = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
            rowCount=dataset.rows
        )
    if dataset.ds is not None:
        facets["subset"] = base_subset_dataset.InputSubsetInputDatasetFacet(_partition(dataset.ds))
    return InputDataset(*_name(dataset.where), facets=_facets(dataset), inputFacets=facets)


def _output(dataset: Dataset) -> OutputDataset:
    facets: dict[str, Any] = {}
    if dataset.rows is not None:
        facets["outputStatistics"] = (
            output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=dataset.rows
            )
        )
    if dataset.ds is not None:
        facets["subset"] = base_subset_dataset.OutputSubsetOutputDatasetFacet(
            _partition(dataset.ds)
        )
    return OutputDataset(*_name(dataset.where), facets=_facets(dataset), outputFacets=facets)


def _partition(ds: str) -> base_subset_dataset.PartitionSubsetCondition:
    partition = base_subset_dataset.Partition({"ds": ds})
    return base_subset_dataset.PartitionSubsetCondition([partition])


def _facets(dataset: Dataset) -> dict[str, Any]:
    facets: dict[str, Any] = {}
    if dataset.columns is not None:
        fields = [
            schema_dataset.SchemaDatasetFacetFields(column.name, str(column.type))
            for column in dataset.columns
        ]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields)
    if dataset.version is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(dataset.version)
    return facets


def _name(where: str | Path) -> tuple[str, str]:
    """Namespace and name of a dataset."""
    if isinstance(where, Path):
        return _path_name(f"file://{where.absolute()}")
    if where.startswith(("models:/", "runs:/")):
        return runs.tracking_address(), where
    if where.startswith(("zoo:", "timm:", "lite:")):
        source, _, name = where.partition(":")
        return source, name
    if where.startswith("table:"):
        catalog, _, table = where.removeprefix("table:").partition(".")
        address = _ask_spark(lambda spark: spark.conf.get(f"spark.sql.catalog.{catalog}.uri"))
        return without_passwords(address or catalog), table
    return _path_name(where if _ADDRESS.fullmatch(where) else _qualified(where))


def _path_name(address: str) -> tuple[str, str]:
    """Namespace and name of a file or folder, whose address has a scheme."""
    found = _ADDRESS.fullmatch(address)
    assert found is not None  # noqa: S101
    scheme, store, path = found[1], found[2] or "", found[3].rstrip("/")
    if scheme == "file":
        return "file", path or "/"
    if not scheme.startswith("abfs"):  # What is before the @ is a container there.
        store = store.rpartition("@")[2]
    path = path if scheme in ("hdfs", "dbfs") else path.removeprefix("/")
    return f"{_SAME_STORE.get(scheme, scheme)}://{store}", path or "/"


def _qualified(path: str) -> str:
    """The address of a path as Spark reads it: on the cluster's default file system."""

    def qualify(spark: SparkSession) -> str:
        assert spark._jvm is not None  # noqa: S101
        at = spark._jvm.org.apache.hadoop.fs.Path(path)
        files = at.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
        return str(files.makeQualified(at).toString())

    return _ask_spark(qualify) or f"file://{Path(path).absolute()}"


def _ask_spark(question: Callable[[SparkSession], str | None]) -> str | None:
    """Spark's answer; None without a session, and where it has none or its Java process is gone."""
    try:
        return question(SparkSession.active())
    except Exception:
        return None
