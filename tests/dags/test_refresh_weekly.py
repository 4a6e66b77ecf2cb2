"""A weekly refresh in a real Airflow: refused by a gate, and then promoted by other gates."""

import pytest

from tests.support.airflow_instance import Airflow
from tests.support.marketplace import Marketplace

pytestmark = [pytest.mark.airflow, pytest.mark.spark, pytest.mark.slow]

WEEKLY = "refresh_weekly"
PROMOTE = "promote_challenger"
DONE = dict.fromkeys(("train_head", "evaluate_challenger", PROMOTE), "success")
DONE |= dict.fromkeys(("train_screener", "evaluate_screener"), "success")
SKIPPED = ("import_reviews", "estimate_precision", "promote_screener")
DONE |= dict.fromkeys(SKIPPED, "skipped")


def test_refusal_stops_the_refresh_and_a_promotion_is_an_event(
    airflow: Airflow, marketplace: Marketplace, refresh: str
) -> None:
    assert airflow.finish(WEEKLY, refresh) == DONE | {PROMOTE: "skipped"}
    trained = airflow.result(WEEKLY, refresh, "train_head")
    assert trained["version"] == "2"
    assert (trained["labels_confirmed"], trained["labels_without_photos"]) == (1, 1)
    assert trained["labels_added"] == 1, "of the daily manifest"
    assert airflow.result(WEEKLY, refresh, "evaluate_challenger")["labels_confirmed"] == 1
    screener = airflow.result(WEEKLY, refresh, "train_screener")
    assert (screener["version"], screener["photos"]) == ("1", 40)
    refused = airflow.result(WEEKLY, refresh, "promote_screener", "refusal")
    assert refused.startswith("listings: 24 labelled, required: at least 200")
    why = airflow.result(WEEKLY, refresh, PROMOTE, "refusal")
    assert why.startswith("listings: 24 labelled, required: at least 200")
    assert why in airflow.log(WEEKLY, refresh, PROMOTE, 1)
    assert marketplace.champion() == "1"
    assert airflow.events("listing_categorizer_champion") == []

    gates = marketplace.gates.read_text(encoding="utf-8")
    lenient = gates.replace("min_listings = 200", "min_listings = 20")
    marketplace.gates.write_text(lenient.replace("max_error = 0.1", "max_error = 0.9"), "utf-8")
    again = {"dag_run_id": refresh, "task_ids": [PROMOTE], "only_failed": False, "dry_run": False}
    airflow.call("POST", f"dags/{WEEKLY}/clearTaskInstances", again)
    assert airflow.finish(WEEKLY, refresh) == DONE
    assert marketplace.champion() == "2"
    (event,) = airflow.events("listing_categorizer_champion")
    assert event["source_run_id"] == refresh
    assert event["extra"]["version"] == "2"
