"""From the categories of one taxonomy to those of another: mapping files, and what they say.

- CSV with the columns `from_id` and `to_id`, one line a pair. Several lines of one `from_id` mean
  that its listings are of one or another; an empty `to_id`, that the category is retired.
- Shopify's integrations: lines `→ A > B` with the names of a category, each followed by lines
  `⇒ C > D` with what it is in the other tree. https://github.com/Shopify/product-taxonomy
"""

import csv
import hashlib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from schemas.errors import DataContractError, SettingsError
from schemas.taxonomy import Taxonomy

__all__ = ["CategoryMapping", "Outcome", "read_mapping"]

_FROM, _TO = "→", "⇒"
_Pair = tuple[str, str, str | None]
"""Where it was read, a category, and what it is in the other tree or None."""


class Outcome(StrEnum):
    """What becomes of a category."""

    MAPPED = "mapped"
    """It is the one category that the mapping names."""
    BY_ANCESTOR = "by_ancestor"
    """It has no line; it is what the mapping names for the nearest category above it."""
    BY_SCORE = "by_score"
    """It became several, of which a model of the new tree is sure of one."""
    AMBIGUOUS = "ambiguous"
    """It became one of several."""
    RETIRED = "retired"
    """It is none any more: the mapping says so."""
    UNMAPPED = "unmapped"
    """Neither it nor any category above it has a line."""
    UNKNOWN = "unknown"
    """The old tree lacks it."""


class CategoryMapping:
    """A mapping, checked against both trees.

    Attributes:
        old: The taxonomy that is mapped from.
        new: The one that is mapped to.
        digest: SHA-256 (hex) of the pairs, whatever their order, and of both trees.
    """

    def __init__(
        self, old: Taxonomy, new: Taxonomy, targets: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.old = old
        self.new = new
        self._targets = dict(targets)
        text = "\n".join(f"{name}\t{found}" for name, found in sorted(self._targets.items()))
        self.digest = hashlib.sha256(f"{old.digest}\n{new.digest}\n{text}".encode()).hexdigest()

    def __len__(self) -> int:
        """How many categories have a line."""
        return len(self._targets)

    def find(self, category: str) -> tuple[Outcome, tuple[str, ...]]:
        """What a category of the old tree is in the new one: one, several, or none."""
        if category not in self.old:
            return Outcome.UNKNOWN, ()
        above = reversed(self.old.ancestors(category))
        own = next((name for name in (category, *above) if name in self._targets), None)
        if own is None:
            return Outcome.UNMAPPED, ()
        found = self._targets[own]
        if not found:
            return Outcome.RETIRED, ()
        if len(found) > 1:
            return Outcome.AMBIGUOUS, found
        return (Outcome.MAPPED if own == category else Outcome.BY_ANCESTOR), found


def read_mapping(path: str | Path, old: Taxonomy, new: Taxonomy) -> CategoryMapping:
    """Read a mapping file, and tell its format from its content.

    Args:
        path: A local file.
        old: The taxonomy that is mapped from.
        new: The one that is mapped to.

    Raises:
        SettingsError: The file is missing or cannot be read.
        DataContractError: It is malformed or empty, or names a category that the tree lacks.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"mapping {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataContractError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    is_shopifys = any(line.startswith(_FROM) for line in text.splitlines())
    pairs = _by_name(text, path, old, new) if is_shopifys else _by_id(text, path)
    targets: dict[str, list[str]] = {}
    for place, category, target in pairs:
        if category not in old:
            raise DataContractError(f"{place}: the old taxonomy has no category {category!r}")
        if target is not None and target not in new:
            raise DataContractError(f"{place}: the new taxonomy has no category {target!r}")
        known = targets.setdefault(category, [])
        if target is not None and target not in known:
            known.append(target)
    if not targets:
        raise DataContractError(f"{path}: maps no category")
    return CategoryMapping(old, new, {name: tuple(found) for name, found in targets.items()})


def _by_id(text: str, path: str | Path) -> Iterator[_Pair]:
    """The pairs of a CSV."""
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    if missing := [name for name in ("from_id", "to_id") if name not in (reader.fieldnames or ())]:
        raise DataContractError(
            f"{path}: no column {', '.join(missing)}, expected a CSV with from_id and to_id or "
            "Shopify's lines → and ⇒"
        )
    for row in reader:
        place = f"{path}, line {reader.line_num}"
        if not row["from_id"]:
            raise DataContractError(f"{place}: from_id is empty")
        if row["to_id"] is None:
            raise DataContractError(f"{place}: to_id is missing")
        yield place, row["from_id"].strip(), row["to_id"].strip() or None


def _by_name(text: str, path: str | Path, old: Taxonomy, new: Taxonomy) -> Iterator[_Pair]:
    """The pairs of Shopify's format, whose categories are given by their names."""
    ids = [{" > ".join(each.path): each.category_id for each in tree} for tree in (old, new)]
    category: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        place, name = f"{path}, line {number}", line[1:].strip()
        if line.startswith(_FROM):
            category = ids[0].get(name, name)
            yield place, category, None
        elif line.startswith(_TO):
            if category is None:
                raise DataContractError(f"{place}: {_TO} without {_FROM} above it")
            yield place, category, ids[1].get(name, name)
        elif line.strip() and not line.startswith("#"):
            raise DataContractError(f"{place}: expected {_FROM}, {_TO} or a comment (#)")
