"""Train a challenger on the labelled listings, and make it the champion if it passes the gates.

What people decided meanwhile wins over the manifest's labels, and gives one to listings that have
none: `import_reviews` fetches it from Label Studio, if there is one, and `estimate_precision` says,
week by week, how often what was assigned is right. `train_head` registers a new version.
`evaluate_challenger` compares it with the champion on listings that neither was trained on.
`promote_challenger` moves `@champion`, which the next daily run uses, and emits the asset
`listing_categorizer_champion`.

**The screener.** If a name for it is set, `train_screener` learns the concepts that a moderation
team labelled, and its new version is evaluated and promoted likewise.

**If a gate refuses it,** the task `promote_challenger` is skipped: its log and its XCom `refusal`
say why, the champion stays, and the daily runs go on with it. To roll back to the last champion:
`python -m jobs.promote_challenger --model-name listing-categorizer --rollback`.

**The first model** has no champion to compare with: it is evaluated alone, and becomes the champion
if it assigns something and passes the gates that are no comparison.
"""

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable

from seer_airflow import settings
from seer_airflow.operators import SubmitJob
from seer_airflow.settings import param

VERSION = "{{ ti.xcom_pull(task_ids='train_head')['version'] }}"
SCREENER_VERSION = "{{ ti.xcom_pull(task_ids='train_screener')['version'] }}"

with DAG(
    "refresh_weekly",
    schedule=CronTriggerTimetable(settings.WEEKLY_CRON, timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=3),
    default_args=settings.TASKS,
    params=settings.WEEKLY_PARAMS,
    description="Train a challenger, compare it with the champion, promote it or say why not",
    doc_md=__doc__,
    tags=["seer"],
) as dag:
    shared = {
        "--embeddings": param("embeddings"),
        "--scratch": param("scratch"),
        "--tracking-uri": param("tracking_uri"),
    }
    fetched = SubmitJob(
        job="import_reviews",
        flags={
            "--label-studio": param("label_studio"),
            "--taxonomy": param("taxonomy"),
            "--labels": param("labels"),
            "--tracking-uri": param("tracking_uri"),
        },
        only_with=param("label_studio", "labels"),
        execution_timeout=timedelta(hours=1),
        doc_md="Fetch what people decided. Skipped without `label_studio`.",
    )
    fetched >> SubmitJob(
        job="estimate_precision",
        flags={
            "--reviews": param("reviews"),
            "--labels": param("labels"),
            "--taxonomy": param("taxonomy"),
            "--page": f"{param('reviews')}/precision.html",
            "--tracking-uri": param("tracking_uri"),
        },
        only_with=param("reviews", "labels"),
        trigger_rule="none_failed",
        execution_timeout=timedelta(hours=1),
        doc_md="Estimate the precision of what was assigned. Skipped without `reviews`.",
    )
    (
        fetched
        >> SubmitJob(
            job="train_head",
            flags={
                "--manifest": param("labelled"),
                "--taxonomy": param("taxonomy"),
                "--backbone": param("backbone"),
                "--registered-name": param("name"),
                "--labels": param("labels"),
                "--reviewed-manifest": param("manifest", "labels"),
                **shared,
            },
            # Also if nothing was to be fetched.
            trigger_rule="none_failed",
            execution_timeout=timedelta(hours=24),
            doc_md="Embed, train, calibrate, register. Returns the report's figures, see *XCom*.",
        )
        >> SubmitJob(
            job="evaluate_challenger",
            flags={
                "--manifest": param("labelled"),
                "--splits": param("splits"),
                "--challenger": f"models:/{param('name')}/{VERSION}",
                "--champion": f"models:/{param('name')}@champion",
                "--labels": param("labels"),
                **shared,
            },
            execution_timeout=timedelta(hours=6),
            doc_md="Compare the new version with the champion on the same listings.",
        )
        >> SubmitJob(
            job="promote_challenger",
            flags={
                "--model-name": param("name"),
                "--version": VERSION,
                "--gates": param("gates"),
                "--tracking-uri": param("tracking_uri"),
            },
            skip_if_refused=True,
            outlets=[settings.CHAMPION],
            execution_timeout=timedelta(minutes=30),
            doc_md="Move `@champion` if the gates pass; otherwise skipped, with the reasons.",
        )
    )
    (
        SubmitJob(
            job="train_screener",
            flags={
                "--manifest": param("labelled"),
                "--labels": param("concept_labels"),
                "--backbone": param("backbone"),
                "--registered-name": param("screener_name"),
                **shared,
            },
            only_with=param("screener_name"),
            execution_timeout=timedelta(hours=12),
            doc_md="Learn concepts from stored vectors. Skipped without `screener_name`.",
        )
        >> SubmitJob(
            job="evaluate_challenger",
            task="evaluate_screener",
            flags={
                "--manifest": param("labelled"),
                "--splits": param("splits"),
                "--challenger": f"models:/{param('screener_name')}/{SCREENER_VERSION}",
                "--champion": f"models:/{param('screener_name')}@champion",
                "--labels": param("concept_labels"),
                **shared,
            },
            execution_timeout=timedelta(hours=6),
            doc_md="Compare the new screener with the champion on the same listings.",
        )
        >> SubmitJob(
            job="promote_challenger",
            task="promote_screener",
            flags={
                "--model-name": param("screener_name"),
                "--version": SCREENER_VERSION,
                "--gates": param("gates"),
                "--tracking-uri": param("tracking_uri"),
            },
            skip_if_refused=True,
            execution_timeout=timedelta(minutes=30),
            doc_md="Move the screener's `@champion` if the gates pass.",
        )
    )
