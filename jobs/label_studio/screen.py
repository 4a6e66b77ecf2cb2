"""What a reviewer sees: the listing's photos side by side, and the answers, one key each."""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from schemas.labels import LabelDecision
from schemas.taxonomy import Taxonomy

__all__ = ["ANOTHER", "CANDIDATE", "DECISION_TAG", "TREE_TAG", "as_task", "as_tree", "label_config"]

DECISION_TAG = "decision"
"""Name of the control with the answers."""
TREE_TAG = "category"
"""Name of the control with the taxonomy, shown where the answer is `ANOTHER`."""
CANDIDATE = "category:"
"""Begins an answer that is one of the model's candidates; its id follows."""
ANOTHER = "another_category"
"""The answer of those who then choose from the taxonomy."""

_ANOTHER_KEY = "6"
_OTHERS = [
    ("7", LabelDecision.UNSURE, "unsure"),
    ("8", LabelDecision.NOT_IN_TAXONOMY, "not in the taxonomy"),
    ("9", LabelDecision.BAD_PHOTO, "bad photo"),
    ("0", LabelDecision.VIOLATION, "violation"),
]
"""Key, decision and text of what is no category; 1 to 5 are the candidates."""

# Label Studio writes `>` of a style as `&gt;`, which would end a rule with a child selector.
_STYLE = """
.lsf-tabs-panel { display: none }
.lsf-sidepanels { padding: 0 !important }
#photos { flex: 1; display: flex; flex-wrap: wrap; gap: 8px; align-content: flex-start }
#photos div { display: contents }
#photos img { max-width: 100%; height: 280px; object-fit: contain }
"""


def label_config(taxonomy: Taxonomy, tree_url: str | None = None) -> str:
    """The page's layout, as Label Studio's XML.

    Args:
        taxonomy: The tree to choose from.
        tree_url: Where the browser finds `as_tree`. Without it the tree is part of the layout,
            which takes Label Studio seconds a listing for trees of ten thousand categories.
    """
    page = ElementTree.Element("View")
    ElementTree.SubElement(page, "Style").text = _STYLE
    ElementTree.SubElement(page, "Text", name="listing", value="$listing_id")
    columns = ElementTree.SubElement(page, "View", style="display: flex; gap: 24px")
    photos = ElementTree.SubElement(columns, "View", idAttr="photos")
    each = ElementTree.SubElement(photos, "Repeater", on="$photos", indexFlag="{{i}}")
    # Inline, not in frames of their own: so they stand side by side.
    photo = {"name": "photo_{{i}}", "value": "$photos[{{i}}].html", "inline": "true"}
    ElementTree.SubElement(each, "HyperText", photo)
    answers = ElementTree.SubElement(columns, "View", style="flex: 0 0 420px")
    ElementTree.SubElement(
        answers,
        "Choices",
        name=DECISION_TAG,
        toName="listing",
        value="$answers",
        choice="single-radio",
        showInline="false",
        required="true",
        requiredMessage="Choose an answer",
    )
    tree = ElementTree.SubElement(
        answers,
        "Taxonomy",
        name=TREE_TAG,
        toName="listing",
        maxUsages="1",
        showFullPath="true",
        minWidth="400px",
        dropdownWidth="600px",
        placeholder="search the taxonomy",
        visibleWhen="choice-selected",
        whenTagName=DECISION_TAG,
        whenChoiceValue=ANOTHER,
        required="true",
        requiredMessage="Choose a category",
    )
    if tree_url is None:
        _add_choices(tree, as_tree(taxonomy))
    else:
        tree.set("apiUrl", tree_url)
    return ElementTree.tostring(page, encoding="unicode")


def _add_choices(parent: ElementTree.Element, nodes: Sequence[Mapping[str, Any]]) -> None:
    for node in nodes:
        choice = ElementTree.SubElement(parent, "Choice", value=node["value"], alias=node["alias"])
        _add_choices(choice, node.get("children", []))


def as_tree(taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """The taxonomy as Label Studio's `apiUrl` serves it: names as values, ids as aliases."""
    roots: list[dict[str, Any]] = []
    nodes = {each.category_id: {"value": each.name, "alias": each.category_id} for each in taxonomy}
    for category in taxonomy:
        parent: dict[str, Any] | None = nodes.get(category.parent_id or "")
        beside = roots if parent is None else parent.setdefault("children", [])
        beside.append(nodes[category.category_id])
    return roots


def as_task(
    row: Mapping[str, Any], photos: Sequence[str], taxonomy: Taxonomy
) -> dict[str, dict[str, Any]]:
    """A listing of the review queue as a task.

    Args:
        row: Of the schema `REVIEWS`.
        photos: Addresses of its photos for a browser.
        taxonomy: Names the candidates.

    Returns:
        A task to import. Beside what is shown its data has what `answers` needs, and nothing that
        would tell a reviewer why the listing was chosen but the name of the selection.
    """
    count = len(photos)
    shown = [
        f'<img src="{html.escape(address)}" alt="photo {place} of {count}">'
        for place, address in enumerate(photos, start=1)
    ]
    return {
        "data": {
            **{name: row[name] for name in ("listing_id", "task", "selection")},
            "taxonomy_version": taxonomy.version,
            "photos": [{"html": image} for image in shown],
            "answers": list(_answers(row["candidates"] or [], taxonomy)),
        }
    }


def _answers(
    candidates: Sequence[Mapping[str, Any]], taxonomy: Taxonomy
) -> Iterator[dict[str, str]]:
    for key, candidate in enumerate(candidates[:5], start=1):
        category = candidate["category_id"]
        path = taxonomy[category].path if category in taxonomy else (category,)
        *above, name = map(html.escape, path)
        shown = f"<b>{name}</b> {candidate['score']:.2f}<br><small>{' &gt; '.join(above)}</small>"
        yield {"value": CANDIDATE + category, "html": shown, "hotkey": str(key)}
    yield {"value": ANOTHER, "html": "another category", "hotkey": _ANOTHER_KEY}
    for other_key, decision, text in _OTHERS:
        yield {"value": decision.value, "html": text, "hotkey": other_key}
