"""Daily runs in a real Airflow: manual, scheduled, asset-triggered, backfilled, and killed."""

import os
import signal
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from tests.support.airflow_instance import Airflow, processes, wait_for
from tests.support.marketplace import COLOURS, Marketplace

pytestmark = [pytest.mark.airflow, pytest.mark.spark, pytest.mark.slow]

DAILY = "categorize_daily"
SENSOR = "wait_for_manifest"
CATEGORIZE = "categorize_listings"
DONE = dict.fromkeys((SENSOR, CATEGORIZE, "check_categories"), "success")
SELECT, EXPORT = "select_reviews", "export_reviews"
SCREEN, DESCRIBE = "screen_listings", "describe_listings"
DONE |= dict.fromkeys((SELECT, EXPORT, SCREEN, DESCRIBE), "skipped")


def job_of(run: str) -> tuple[int, int, int]:
    """Wait for a run's main job; gives the ids of the task's process, the JVM and the job."""

    def is_python(process: int) -> bool:
        """Whether it is the job, and not one of spark-submit's shells or JVMs."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(process).name().lower().startswith("python")
        return False

    def look() -> tuple[int, int, int] | None:
        parents = processes(f"/{run}/{CATEGORIZE}.", "--report")
        found = [(job, jvm) for job, jvm in parents.items() if jvm in parents and is_python(job)]
        return (parents[found[0][1]], found[0][1], found[0][0]) if found else None

    return wait_for(f"the job of {run}", look)


@pytest.mark.usefixtures("refresh", "backfill")
def test_nightly_run_waits_for_its_partition_and_a_killed_job_is_done_again(
    airflow: Airflow, marketplace: Marketplace, night: datetime
) -> None:
    ds = night.date().isoformat()
    run, *_ = wait_for(
        "the nightly run",
        lambda: [r for r in airflow.runs(DAILY, "scheduled") if r.startswith(f"scheduled__{ds}T")],
    )
    wait_for(
        "the sensor to wait",
        lambda: airflow.task(DAILY, run, SENSOR)["state"] == "up_for_reschedule",
    )
    marketplace.add_day(ds)
    wait_for("the partition to be held", lambda: marketplace.lock_holder(ds))
    _, jvm, job = job_of(run)
    assert marketplace.lock_holder(ds) == job
    os.kill(jvm, signal.SIGKILL)

    assert airflow.finish(DAILY, run) == DONE
    assert airflow.task(DAILY, run, CATEGORIZE)["try_number"] > 1
    published = marketplace.published(ds)
    tracked = marketplace.tracked(ds)
    assert [each for each, status in tracked.items() if status == "FINISHED"] == [published]
    folder = marketplace.folder / "categories" / "_runs" / f"ds={ds}"
    assert [path.name for path in folder.iterdir()] == [published]
    (event,) = [e for e in airflow.events("listing_categories") if e["source_run_id"] == run]
    assert event["extra"]["ds"] == ds
    assert event["extra"]["run_id"] == published
    assert event["extra"]["model_version"] == "1"
    assert event["extra"]["listings"] == len(COLOURS) + 1
    assert event["extra"]["rejected"] == 1


def test_asset_triggered_run_is_retried_while_its_first_job_still_runs(
    airflow: Airflow, marketplace: Marketplace
) -> None:
    ds = "2026-11-12"
    marketplace.add_day(ds)
    event = {"asset_id": airflow.asset("listing_manifest"), "extra": {"ds": ds}}
    airflow.call("POST", "assets/events", event)
    (run,) = wait_for("an asset-triggered run", lambda: airflow.runs(DAILY, "asset_triggered"))
    wait_for("the partition to be held", lambda: marketplace.lock_holder(ds))
    task, _, job = job_of(run)
    os.kill(job, signal.SIGSTOP)
    try:
        os.kill(task, signal.SIGKILL)
        wait_for(
            "a try that finds the partition held",
            lambda: f"ds={ds} is held by run" in airflow.log(DAILY, run, CATEGORIZE, 2),
        )
    finally:
        os.kill(job, signal.SIGCONT)

    assert airflow.finish(DAILY, run) == DONE
    first, *_ = marketplace.tracked(ds).items()
    wait_for("the first job to end", lambda: job not in processes(run))
    tracked = marketplace.tracked(ds)
    finished = [each for each, status in tracked.items() if status == "FINISHED"]
    assert tracked[first[0]] == "FINISHED", "the job that Airflow lost ran to its end"
    assert marketplace.published(ds) == finished[-1]


def test_backfill_goes_on_after_a_day_that_breaks_the_contract(
    airflow: Airflow, marketplace: Marketplace, backfill: dict[str, str]
) -> None:
    (_, refused), (ds, run) = backfill.items()
    states = airflow.finish(DAILY, refused, "failed")
    unreached = dict.fromkeys(
        ("check_categories", SELECT, EXPORT, SCREEN, DESCRIBE), "upstream_failed"
    )
    assert states == DONE | {CATEGORIZE: "failed"} | unreached
    assert airflow.task(DAILY, refused, CATEGORIZE)["try_number"] == 1
    log = airflow.log(DAILY, refused, CATEGORIZE, 1)
    assert "exit code 3: categorize_listings.py: error: " in log
    assert "column image_index is missing" in log

    ran = dict.fromkeys((SELECT, SCREEN, DESCRIBE), "success")
    assert airflow.finish(DAILY, run) == DONE | ran
    assert airflow.result(DAILY, run, SENSOR) == ds
    asked = airflow.result(DAILY, run, SELECT)
    assert (asked["listings"], asked["decided"]) == (len(COLOURS) + 1, 1)
    assert (marketplace.folder / "reviews" / f"ds={ds}" / "reviews.parquet").exists()
    screened = airflow.result(DAILY, run, SCREEN)
    assert (screened["listings"], screened["review"]) == (len(COLOURS) + 1, 1)
    assert screened["photos_embedded"] == screened["photos_rejected"] == 1, "read again"
    assert (marketplace.folder / "screening" / f"ds={ds}").exists()
    described = airflow.result(DAILY, run, DESCRIBE)
    assert described["photos"] == len(COLOURS) + 1
    assert described["photos_embedded"] == 1, "the one that cannot be read"
    assert (marketplace.folder / "descriptions" / f"ds={ds}").exists()
    assert airflow.result(DAILY, run, CATEGORIZE)["decisions_not_in_taxonomy"] == 1
    assert list(marketplace.tracked(ds)) == [marketplace.published(ds)]


def test_manual_run_that_is_marked_as_failed_leaves_no_process(
    airflow: Airflow, marketplace: Marketplace
) -> None:
    today = datetime.now(UTC).date()
    days = [day.isoformat() for day in (today, today + timedelta(days=1))]  # Midnight may pass.
    for ds in days:
        marketplace.add_day(ds)
    run = airflow.trigger(DAILY)
    *_, job = job_of(run)
    os.kill(job, signal.SIGSTOP)  # It does not see that the JVM is gone, and hears no SIGTERM.
    assert airflow.result(DAILY, run, SENSOR) in days
    airflow.call("PATCH", f"dags/{DAILY}/dagRuns/{run}", {"state": "failed"})
    wait_for("all of spark-submit to end", lambda: not processes(run))


def test_manual_run_of_a_given_day_waits_for_it(airflow: Airflow) -> None:
    run = airflow.trigger(DAILY, ds="2026-11-10")
    wait_for(
        "the sensor to look for the day",
        lambda: "ds=2026-11-10 is not there yet" in airflow.log(DAILY, run, SENSOR, 1),
    )
