"""Reviewers' answers in Label Studio's JSON, as decisions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from jobs.label_studio.screen import ANOTHER, CANDIDATE, DECISION_TAG, TREE_TAG
from schemas.errors import DataContractError
from schemas.labels import LABELS, LabelDecision, LabelSource

__all__ = ["Answers", "read_answers"]

_SCHEMA = pa.schema([field.with_nullable(True) for field in LABELS if field.name != "run_id"])


@dataclass(frozen=True)
class Answers:
    """What reviewers answered.

    Attributes:
        decisions: The columns of `LABELS` but `run_id`.
        skipped: How many listings a reviewer skipped.
        unanswered: How many were submitted without an answer.
    """

    decisions: pa.Table
    skipped: int
    unanswered: int


def read_answers(tasks: object, reviewers: Mapping[int, str], where: str) -> Answers:
    """Read decisions from tasks with annotations.

    Args:
        tasks: Label Studio's export in its format JSON, parsed.
        reviewers: Names of users by id; others are called `user ID`.
        where: Names the export at the beginning of an error message.

    Raises:
        DataContractError: It is no such export, or not of tasks from `jobs.export_reviews`.
    """
    if not isinstance(tasks, list):
        raise DataContractError(f"{where}: expected a list of tasks, Label Studio's format JSON")
    rows: list[dict[str, Any]] = []
    missing: Counter[str] = Counter()
    for place, task in enumerate(tasks, start=1):
        try:
            data, annotations = task["data"], task["annotations"]
            about = {
                name: data[name] for name in ("listing_id", "task", "selection", "taxonomy_version")
            }
            for annotation in annotations:
                if annotation.get("was_cancelled"):
                    missing["skipped"] += 1
                elif (answer := _answer(annotation["result"])) is None:
                    missing["unanswered"] += 1
                else:
                    rows.append(about | _decided(annotation, answer, reviewers))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataContractError(
                f"{where}, task {place}: not a listing that jobs.export_reviews sent, in Label "
                f"Studio's format JSON ({type(error).__name__}: {error})"
            ) from error
    return Answers(_as_table(rows, where), missing["skipped"], missing["unanswered"])


def _answer(results: Sequence[Mapping[str, Any]]) -> str | None:
    """The value of the answer; that of a category from the tree as if it were a candidate."""
    given = {result["from_name"]: result["value"] for result in results}
    if DECISION_TAG not in given:
        return None
    (answer,) = given[DECISION_TAG]["choices"]
    if answer != ANOTHER:
        return str(answer)
    if TREE_TAG not in given:
        return None
    (path,) = given[TREE_TAG]["taxonomy"]
    return f"{CANDIDATE}{path[-1]}"


def _decided(
    annotation: Mapping[str, Any], answer: str, reviewers: Mapping[int, str]
) -> dict[str, Any]:
    is_category = answer.startswith(CANDIDATE)
    by = annotation["completed_by"]
    return {
        "decision": LabelDecision.CATEGORY.value if is_category else answer,
        "category_id": answer.removeprefix(CANDIDATE) if is_category else None,
        "reviewer": by["email"] if isinstance(by, dict) else reviewers.get(by, f"user {by}"),
        "source": LabelSource.REVIEW.value,
        # A corrected answer is a newer decision.
        "decided_at": datetime.fromisoformat(annotation["updated_at"]),
    }


def _as_table(rows: Sequence[Mapping[str, Any]], where: str) -> pa.Table:
    try:
        return pa.Table.from_pylist(list(rows), _SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataContractError(f"{where}: {error}") from error
