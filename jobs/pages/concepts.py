"""The evaluation page of a screener: its concepts, the champion's beside them, as one HTML file."""

from collections.abc import Mapping
from typing import Any

from jobs.pages.templates import render

__all__ = ["concepts_page"]


def concepts_page(evaluation: Mapping[str, Any]) -> str:
    """Render a self-contained page; all names are escaped, and it may load nothing.

    Args:
        evaluation: As `seer_model.evaluation.concepts.concept_record` returns it.
    """
    return render("concepts.html.jinja", e=evaluation)
