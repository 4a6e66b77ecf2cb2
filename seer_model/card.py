"""A model's card: what a person must know before using it, in Markdown, from the model alone."""

import json
from collections.abc import Iterable
from itertools import groupby

from seer_model.backbone import Backbone
from seer_model.bundle import Bundle
from seer_model.trunk import STAGES

__all__ = ["backbone_card", "bundle_card", "literal"]

_MOST_CLASSES = 30
_MOST_CHARACTERS = 120


def bundle_card(bundle: Bundle) -> str:
    """The card of a categorizer.

    The figures on `val` are those that the bundle holds.
    """
    tree, calibration, training = bundle.tree, bundle.calibration, dict(bundle.training)
    figures = training.pop("val", {})
    levels = "\n".join(
        f"| {depth} | {len(level.categories)} | {'never' if t is None else format(t, '.3f')} |"
        for depth, (level, t) in enumerate(
            zip(tree.levels, calibration.thresholds, strict=True), start=1
        )
    )
    return f"""# Listing categorizer: {len(tree.classes)} classes

Gives a marketplace's listing one category of a taxonomy, from its photos.

- Taxonomy: version {literal(tree.taxonomy.version)}, {len(tree.taxonomy)} categories, \
digest {literal(tree.taxonomy.digest)}
- Bundle: digest {literal(bundle.digest)}
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

A row a photo in, a row a listing out: `decision` is `assigned` (`category_id` is a class, or an
ancestor of one), `needs_review` or `rejected` (`reject_reason` says why no photo could be used).
It takes photos as bytes, in JSON as base64. Addresses (`image_uri`) are read only if its setting
`read_image_uris` is true: `load_model(…, model_config={{"read_image_uris": True}})`, for a server
`MLFLOW_PYFUNC_INFERENCE_CONFIG='{{"read_image_uris": true}}'`.

## Intended use and limits

- For photos of goods for sale, such as it was trained on. Not for telling who is in a photo, nor
  for moderation or safety.
- It knows its classes and what is above them in the taxonomy, and nothing else: a photo of
  something else gets the likeliest of them, or goes to review.
- It sees the centre square of each photo, and neither title nor text.
- The scores and thresholds below hold for listings like those of `val`. Elsewhere the precision
  may be lower: evaluate it on your own.

## Decisions

From the deepest level up, the best category of a level is assigned if its score reaches the
threshold. They were chosen on `val` for a precision of {calibration.target_precision:.3g}, with
temperature {calibration.temperature:.4g}.

| level | categories | assigned from |
|--:|--:|--:|
{levels}

## Figures on `val`

{_entries(figures) or "None are on record."}

## Training

{_entries(training) or "Nothing is on record."}

## Classes

{_classes(bundle)}
"""


def backbone_card(backbone: Backbone) -> str:
    """The card of a backbone."""
    return f"""# Backbone: photos to features

{_backbone(backbone)}

## How to use it

```sh
python -m jobs.train_head --backbone models:/NAME/VERSION …
```

```python
model = mlflow.pyfunc.load_model("models:/NAME/VERSION")
model.predict(pd.DataFrame({{"image_bytes": [photo]}}))  # `vector`, or `reject_reason`
```
"""


def literal(text: object) -> str:
    """Text from outside as Markdown that shows it as it is: one line of code, and not too long.

    Nothing in a code span is markup, be it Markdown, HTML or an address; only a backtick ends it,
    and so the span is enclosed in more of them than the text has in a row.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    if len(line) > _MOST_CHARACTERS:
        line = f"{line[: _MOST_CHARACTERS - 1]}…"
    if "`" not in line:
        return f"`{line or ' '}`"
    fence = "`" * (max(len(list(run)) for tick, run in groupby(line) if tick == "`") + 1)
    return f"{fence} {line} {fence}"


def _backbone(backbone: Backbone) -> str:
    question = "" if backbone.commercial else ", **not known to allow commercial use**"
    return "\n".join(
        (
            f"- Backbone: {literal(backbone.architecture)}, {literal(backbone.origin)}, "
            f"digest {literal(backbone.digest)}",
            f"- Features: {backbone.width}, of photos of {backbone.preprocessing.image_size} "
            f"pixels, from the last {backbone.feature_stages} of {STAGES} stages",
            f"- Licence of the weights: {literal(backbone.licence)}{question}",
        )
    )


def _entries(record: dict[str, object]) -> str:
    return "\n".join(
        f"- {literal(name)}: {_value(value)}" for name, value in record.items() if value is not None
    )


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return literal(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _classes(bundle: Bundle) -> str:
    tree = bundle.tree
    paths = (" > ".join(tree.taxonomy[name].path) for name in tree.classes[:_MOST_CLASSES])
    more = len(tree.classes) - _MOST_CLASSES
    return _lines(paths) + (f"\n- and {more} more, in `bundle.json`" if more > 0 else "")


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(f"- {literal(text)}" for text in texts)
