"""Categorize the day's listings.

The run waits for the manifest's partition, submits `jobs/categorize_listings.py`, counts with
`jobs/check_categories.py` what was published, and emits the asset `listing_categories` with the
counts. If a folder for review queues is set, `jobs/select_reviews.py` then chooses the listings
that people should decide, and `jobs/export_reviews.py` sends them to Label Studio, if there is one.

**Screening.** If an output for it is set, `jobs/screen_listings.py` says which listings may be
shown. With an embedding store, each photo is read once for all jobs; a screener of another backbone
than the categorizer's reads them again.

**Descriptions.** If an output for them is set, `jobs/describe_listings.py` writes alternative
texts.

**When it runs.** Every night, and whenever the asset `listing_manifest` has an event. The partition
is the parameter `ds` if given, else the `ds` in the event's extra (`{"ds": "2026-11-25"}`), else
the run's date in UTC.

**With a table as manifest** the run does not wait: post the event once the day is written. A run
without it fails at once if the table has no row of the day.

**Rerunning a day is safe.** It replaces the day's rows at once, and with an embedding
store it takes a fraction of the first time. Past days, one after the other:
`airflow backfill create --dag-id categorize_daily --from-date … --to-date … --max-active-runs 1`.

**When a task fails.** Wrong settings (exit code 2), data that break the contract (3) and a day with
too many photos that cannot be read (4) fail it at once, with a line that says what to do.
Everything else is retried, with increasing delays: a job that died, or another run that holds the
partition (5).
"""

import logging
from datetime import UTC, datetime, timedelta

from airflow.sdk import (
    DAG,
    AssetOrTimeSchedule,
    CronTriggerTimetable,
    ObjectStoragePath,
    PokeReturnValue,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowFailException

from seer_airflow import settings
from seer_airflow.operators import SubmitJob
from seer_airflow.settings import param

log = logging.getLogger(__name__)

# What the jobs beside the categories need of a photo, so that it is read once.
SIGNALS = """{{ (
    (['hashes', 'text'] if params.screening else [])
    + (['colours', 'text'] if params.descriptions else [])
) | unique | join(',') if params.embeddings else '' }}"""
DS = "{{ ti.xcom_pull(task_ids='wait_for_manifest') }}"


def choose_day(given: str | None, named: set[str], moment: datetime) -> str:
    """Choose the partition: `given` as a parameter, `named` by events, or the date of `moment`."""
    if given:
        return given
    if len(named) > 1:
        raise AirflowFailException(
            f"events of several partitions in one run: run {', '.join(sorted(named))} one by one"
        )
    return named.pop() if named else moment.astimezone(UTC).date().isoformat()


def is_complete(partition: ObjectStoragePath) -> bool:
    """Whether there are Parquet files, and no temporary folder of an active writer."""
    names = {path.name for path in partition.iterdir()} if partition.exists() else set()
    return "_temporary" not in names and any(name.endswith(".parquet") for name in names)


@task.sensor(
    mode="reschedule",
    poke_interval=settings.POKE_INTERVAL,
    timeout=timedelta(hours=12).total_seconds(),
    execution_timeout=timedelta(minutes=10),
    doc_md="Wait until the partition is complete. Returns its date, see *XCom*.",
)
def wait_for_manifest() -> PokeReturnValue:
    """Check whether the partition is complete; returns its date."""
    context = get_current_context()
    params, dag_run = context["params"], context["dag_run"]
    events = [event for each in context["triggering_asset_events"].values() for event in each]
    named = {event.extra["ds"] for event in events if "ds" in event.extra}
    ds = choose_day(params["ds"], named, dag_run.logical_date or dag_run.run_after)
    if params["manifest"].startswith("table:"):
        log.info("%s is a table: its day is not waited for", params["manifest"])
        return PokeReturnValue(True, ds)
    partition = ObjectStoragePath(params["manifest"]) / f"ds={ds}"
    complete = is_complete(partition)
    log.info("%s is %s", partition, "there" if complete else "not there yet")
    return PokeReturnValue(complete, ds)


with DAG(
    "categorize_daily",
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable(settings.DAILY_CRON, timezone="UTC"),
        assets=settings.MANIFEST,
    ),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=2),
    default_args=settings.TASKS,
    params=settings.DAILY_PARAMS,
    description="Categorize the day's listings, check what was published, emit an asset event",
    doc_md=__doc__,
    tags=["seer"],
) as dag:
    data = {"--manifest": param("manifest"), "--ds": DS, "--output": param("output")}
    asked = {"--ds": DS, "--manifest": param("manifest"), "--tracking-uri": param("tracking_uri")}
    categorized = SubmitJob(
        job="categorize_listings",
        flags={
            **data,
            "--model": param("model"),
            "--embeddings": param("embeddings"),
            "--labels": param("labels"),
            "--signals": SIGNALS,
            "--scratch": param("scratch"),
            "--tracking-uri": param("tracking_uri"),
        },
        execution_timeout=timedelta(hours=12),
        doc_md="Embed, score and publish. Returns the report's figures, see *XCom*.",
    )
    wait_for_manifest() >> categorized
    categorized >> SubmitJob(
        job="screen_listings",
        flags={
            **asked,
            "--output": param("screening"),
            "--model": param("screener"),
            "--backbone": "{{ '' if params.screener else params.model }}",
            "--rules": param("rules"),
            "--known-photos": param("known_photos"),
            "--embeddings": param("embeddings"),
            "--scratch": param("scratch"),
        },
        only_with=param("screening"),
        execution_timeout=timedelta(hours=12),
        doc_md="Say which listings may be shown. Skipped without `screening`.",
    )
    categorized >> SubmitJob(
        job="describe_listings",
        flags={
            **asked,
            "--output": param("descriptions"),
            "--model": param("model"),
            "--attributes": param("attributes"),
            "--locale": param("locales"),
            "--names": param("names"),
            "--labels": param("labels"),
            "--embeddings": param("embeddings"),
            "--scratch": param("scratch"),
        },
        only_with=param("descriptions"),
        execution_timeout=timedelta(hours=12),
        doc_md="Write alternative texts. Skipped without `descriptions`.",
    )
    (
        categorized
        >> SubmitJob(
            job="check_categories",
            flags=data,
            outlets=[settings.CATEGORIES],
            execution_timeout=timedelta(hours=2),
            doc_md="Check what readers see against the manifest, apart from the job that wrote it.",
        )
        >> SubmitJob(
            job="select_reviews",
            flags={
                **asked,
                "--categories": param("output"),
                "--model": param("model"),
                "--output": param("reviews"),
                "--embeddings": param("embeddings"),
                "--labels": param("labels"),
                "--scratch": param("scratch"),
            },
            only_with=param("reviews"),
            execution_timeout=timedelta(hours=4),
            doc_md="Choose the listings that people should decide. Skipped without `reviews`.",
        )
        >> SubmitJob(
            job="export_reviews",
            flags={
                **asked,
                "--reviews": param("reviews"),
                "--taxonomy": param("taxonomy"),
                "--output": f"{param('reviews')}/to-review",
                "--photo-folder": param("photo_folder"),
                "--label-studio": param("label_studio"),
            },
            only_with=param("label_studio", "reviews"),
            execution_timeout=timedelta(hours=1),
            doc_md="Show them in Label Studio. Skipped without `label_studio`.",
        )
    )
