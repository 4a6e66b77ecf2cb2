"""Model cards: what to know before using a model, in Markdown, from the model's own files."""

import json
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from seer_model.backbones.backbone import Backbone
from seer_model.backbones.constants import STAGES
from seer_model.categorizer.bundle import Bundle
from seer_model.evaluation.groups import SMALL_SLICE
from seer_model.screener.concepts import ScreenerModel

__all__ = ["backbone_card", "bundle_card", "code_span", "screener_card"]

_MOST_CLASSES = 30
_MOST_CHARACTERS = 120


def bundle_card(bundle: Bundle) -> str:
    """Write the card of a bundle."""
    tree, calibration, training = bundle.tree, bundle.calibration, dict(bundle.training)
    figures, groups = training.pop("val", {}), training.pop("worst_groups", [])
    levels = "\n".join(
        f"| {depth} | {len(level.categories)} | {'never' if t is None else format(t, '.3f')} |"
        for depth, (level, t) in enumerate(
            zip(tree.levels, calibration.thresholds, strict=True), start=1
        )
    )
    return f"""# Listing categorizer: {len(tree.classes)} classes

Assigns a category of a taxonomy to a marketplace's listing, from its photos.

- Taxonomy: version {code_span(tree.taxonomy.version)}, {len(tree.taxonomy)} categories, \
digest {code_span(tree.taxonomy.digest)}
- Bundle: digest {code_span(bundle.digest)}
{_backbone(bundle.backbone)}

## How to use it

```python
model = mlflow.pyfunc.load_model("models:/NAME/VERSION")
model.predict(pd.DataFrame({{"listing_id": ["a", "a"], "image_bytes": [front, back]}}))
```

```sh
mlflow models serve -m models:/NAME/VERSION --env-manager uv
curl -H 'Content-Type: application/json' -d @serving_input_example.json \\
    http://127.0.0.1:5000/invocations
```

One row per photo in, one row per listing out. `decision` is `assigned` (`category_id` is a class,
or an ancestor of one), `needs_review` (`review_reason`: `unfamiliar` or `unsure`), or `rejected`
(`reject_reason` says why no photo could be used). Photos are bytes or base64, also as a `data:`
URI. Addresses (`image_uri`) are read only if
the setting `read_image_uris` is true: `load_model(…, model_config={{"read_image_uris": True}})`;
for a server, `MLFLOW_PYFUNC_INFERENCE_CONFIG='{{"read_image_uris": true}}'`. Leave it off for
clients that you do not trust: the server would read its own files and network for them (SSRF).

## Intended use and limits

- Use it for photos of goods for sale like those it was trained on; not to identify people, nor for
  moderation or safety.
- It knows its classes and their ancestors only. Listings unlike them go to review as
  `unfamiliar`; some that are like them and of a new kind are assigned the likeliest.
- It sees the centre crop of each photo; it reads neither title nor text.
- The scores and thresholds below rest on {code_span(training.get("calibrated_on", "val"))} and hold
  for listings like those. On others, such as those of new senders, the precision may be lower:
  evaluate it on your own.

## Decisions

From the deepest level up, the best category of a level is assigned if its score reaches that
level's threshold. The thresholds were chosen for a precision of
{calibration.target_precision:.3g}, with temperature {calibration.temperature:.4g}.

| level | categories | threshold |
|--:|--:|--:|
{levels}

## Figures on the listings it was calibrated on

{_entries(figures) or "None recorded."}

## Groups

Of each slice of these listings, the group with the lowest top-1, and its distance from the one with
the highest; the intervals hold for all groups of the slice at once. Groups of fewer than
{SMALL_SLICE} listings were not judged. Only slices that the manifest names were looked at: others
may be unequal, too.

{_groups(groups)}

## Training

{_entries(training) or "Nothing recorded."}

## Classes

{_classes(bundle)}
"""


def backbone_card(backbone: Backbone) -> str:
    """Write the card of a backbone."""
    return f"""# Backbone: photos to embeddings

{_backbone(backbone)}

## How to use it

```sh
python -m jobs.train_head --backbone models:/NAME/VERSION …
```

```python
model = mlflow.pyfunc.load_model("models:/NAME/VERSION")
model.predict(pd.DataFrame({{"image_bytes": [photo]}}))  # `vector` or `reject_reason`
```
"""


def screener_card(model: ScreenerModel) -> str:
    """Write the card of a screener."""
    training = dict(model.training)
    figures = training.pop("concepts", {})
    rows = "\n".join(
        f"| {_cell(concept.name)} | {concept.review_at:.3f} | "
        f"{'never' if concept.block_at is None else format(concept.block_at, '.3f')} | "
        + " | ".join(_figure(figures.get(concept.name, {}), name) for name in _OF_CONCEPTS)
        + " |"
        for concept in model.concepts.concepts
    )
    return f"""# Listing screener: {len(model.concepts.concepts)} concepts

Says which of a marketplace's listings people should look at, or must not be shown, from what is
seen in their photos.

- Model: digest {code_span(model.digest)}
{_backbone(model.backbone)}

## How to use it

```sh
python -m jobs.screen_listings --model models:/NAME@champion …
```

```python
model = mlflow.pyfunc.load_model("models:/NAME/VERSION")
model.predict(pd.DataFrame({{"listing_id": ["a", "a"], "image_bytes": [front, back]}}))
```

One row per photo in, one row per listing out: `action` (`allow`, `review` or `block`), and the
`findings` that explain it. The served model screens for concepts alone; rules for text and known
photos are the job's. Addresses (`image_uri`) are read only if the setting `read_image_uris` is
true.

## Intended use and limits

- Use it to decide what people look at first. It is not made to judge people, nor to replace a
  legal duty to look.
- It knows its concepts only, as the labels drew them, and sees the centre crop of each photo: what
  is small or at the edge is missed.
- Recall and precision hold for listings like those it was calibrated on, with as many that have
  the concept among them. Where fewer have it, fewer of the blocked ones do: evaluate it on
  listings drawn at random.

## Concepts

From *review at* on people look at a photo's listing, from *block at* on it is not shown; both are
probabilities. *Missing* are labels with the concept that would show the recall asked for.

{_CONCEPTS_HEAD}
{rows}

## Training

{_entries(training) or "Nothing recorded."}
"""


_CONCEPTS_HEAD = (
    "| concept | review at | block at | listings | with it | average precision | recall "
    "| reviewed | missing | recall of blocking | calibrated on |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|"
)
_OF_CONCEPTS = (
    *("listings", "with_it", "average_precision", "recall", "reviewed_share"),
    *("recall_labels_missing", "blocked_recall", "calibrated_on"),
)


def _figure(figures: dict[str, Any], name: str) -> str:
    value = figures.get(name)
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else _cell(value)


def code_span(text: object) -> str:
    """Quote untrusted text as a Markdown code span: on one line, cut to a maximal length.

    Nothing in a code span is markup: no Markdown, HTML or link. Only a run of backticks as long as
    the fence ends it, so the fence is longer than any run in the text.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    if len(line) > _MOST_CHARACTERS:
        line = f"{line[: _MOST_CHARACTERS - 1]}…"
    if "`" not in line:
        return f"`{line or ' '}`"
    fence = "`" * (max(len(list(run)) for tick, run in groupby(line) if tick == "`") + 1)
    return f"{fence} {line} {fence}"


def _backbone(backbone: Backbone) -> str:
    warning = "" if backbone.commercial else ", **not known to allow commercial use**"
    several = f"{backbone.feature_stages} of {STAGES} stages"
    return "\n".join(
        (
            f"- Backbone: {code_span(backbone.architecture)}, {code_span(backbone.origin)}, "
            f"digest {code_span(backbone.digest)}",
            f"- Computes {'in eight bits, on CPUs' if backbone.quantized else 'in floating point'}",
            f"- Embeddings: {backbone.width} features, of photos of "
            f"{backbone.preprocessing.image_size} pixels, from the last "
            f"{'stage' if backbone.feature_stages == 1 else several}",
            f"- Licence of the weights: {code_span(backbone.licence)}{warning}",
        )
    )


def _entries(record: dict[str, object]) -> str:
    return "\n".join(
        f"- {code_span(name)}: {_value(value)}"
        for name, value in record.items()
        if value is not None
    )


def _groups(groups: list[dict[str, Any]]) -> str:
    if not groups:
        return "None judged: no slice has two groups large enough."
    head = (
        "| slice | worst | listings | top-1 | best | gap | not judged |\n"
        "|---|---|--:|--:|---|--:|--:|"
    )
    rows = (
        f"| {_cell(g['slice'])} | {_cell(g['worst'])} | {g['listings']} | "
        f"{g['top1']:.3f} ({g['top1_interval'][0]:.3f} to {g['top1_interval'][1]:.3f}) | "
        f"{_cell(g['best'])} | {g['gap']['value']:.3f} ({g['gap']['low']:.3f} to "
        f"{g['gap']['high']:.3f}) | {g['small']} |"
        for g in groups
    )
    return "\n".join((head, *rows))


def _cell(text: object) -> str:
    """A code span in a table, where a bar would end the cell."""
    return code_span(str(text).replace("|", "/"))


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return code_span(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _classes(bundle: Bundle) -> str:
    tree = bundle.tree
    paths = (" > ".join(tree.taxonomy[name].path) for name in tree.classes[:_MOST_CLASSES])
    more = len(tree.classes) - _MOST_CLASSES
    return _lines(paths) + (f"\n- and {more} more, in `bundle.json`" if more > 0 else "")


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(f"- {code_span(text)}" for text in texts)
