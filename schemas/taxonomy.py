"""The taxonomy: the tree of categories."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from schemas.columns import column_problems
from schemas.errors import TaxonomyError

__all__ = ["TAXONOMY", "Category", "Taxonomy"]

TAXONOMY: pa.Schema = pa.schema(
    [
        pa.field("category_id", pa.string(), nullable=False),
        pa.field("category_path", pa.list_(pa.string()), nullable=False),
        pa.field("parent_id", pa.string()),
    ]
)
"""A taxonomy as a table, one row a category; the schema's metadata has the version."""

_VERSION_KEY = b"taxonomy_version"


@dataclass(frozen=True, slots=True)
class Category:
    """A node of the tree.

    Attributes:
        category_id: Unique in the tree.
        path: Names from the top category down to its own; at least one.
        parent_id: The category directly above; None for a top category.
    """

    category_id: str
    path: tuple[str, ...]
    parent_id: str | None

    @property
    def name(self) -> str:
        """Its own name, the last of the path."""
        return self.path[-1]


class Taxonomy:
    """Categories in file order, checked to form a tree with one or more top categories.

    Supports `len(taxonomy)`, `id in taxonomy`, `taxonomy[id]` and iteration over the categories.

    Attributes:
        version: The publisher's version, or else the first 12 digits of `digest`.
        digest: SHA-256 (hex) of ids, paths and parents, independent of order and version.
    """

    version: str
    digest: str

    def __init__(
        self,
        categories: Iterable[Category],
        version: str | None = None,
        places: Sequence[str] | None = None,
    ) -> None:
        """Check that the categories form a tree.

        Args:
            categories: At least one; a parent may come after its child.
            version: The publisher's version, if any.
            places: Where each category was read, for error messages; by default its position.

        Raises:
            TaxonomyError: There is no category; an id or name is empty; an id or path occurs twice;
                a parent is unknown; parents form a cycle; or a path does not extend its parent's
                by one name.
        """
        ordered = tuple(categories)
        places = places or [f"category {number}" for number in range(1, len(ordered) + 1)]
        self._by_id = _index(ordered, places)
        _check_parents(self._by_id, places)
        self.digest = _digest(ordered)
        self.version = version or self.digest[:12]

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, category_id: object) -> bool:
        return category_id in self._by_id

    def __getitem__(self, category_id: str) -> Category:
        return self._by_id[category_id]

    def __iter__(self) -> Iterator[Category]:
        return iter(self._by_id.values())

    def ancestors(self, category_id: str) -> tuple[str, ...]:
        """The ids above a category, top category first.

        Raises:
            KeyError: No category has that id.
        """
        above = []
        parent_id = self._by_id[category_id].parent_id
        while parent_id is not None:
            above.append(parent_id)
            parent_id = self._by_id[parent_id].parent_id
        return tuple(reversed(above))

    def to_table(self) -> pa.Table:
        """Convert to a table of schema `TAXONOMY`, in file order."""
        return pa.table(
            {
                "category_id": [category.category_id for category in self],
                "category_path": [category.path for category in self],
                "parent_id": [category.parent_id for category in self],
            },
            schema=TAXONOMY.with_metadata({_VERSION_KEY: self.version.encode()}),
        )

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Restore what `to_table` wrote: same categories, order, version and digest.

        Raises:
            TaxonomyError: A column is missing or of the wrong type, or the rows are not a tree.
        """
        problems = column_problems(table.schema, TAXONOMY, required=TAXONOMY.names)
        if problems:
            raise TaxonomyError(f"taxonomy table: {'; '.join(problems)}")
        try:
            columns = [table[name].to_pylist() for name in TAXONOMY.names]
            version = (table.schema.metadata or {}).get(_VERSION_KEY, b"").decode()
        except UnicodeDecodeError:
            raise TaxonomyError("taxonomy table: holds text that is not UTF-8") from None
        if not version.isprintable():
            raise TaxonomyError("taxonomy table: its version is not a line of text")
        return cls(
            (
                Category(category_id, tuple(path or ()), parent_id)
                for category_id, path, parent_id in zip(*columns, strict=True)
            ),
            version,
            [f"taxonomy table, row {row}" for row in range(table.num_rows)],
        )


def _index(categories: Sequence[Category], places: Sequence[str]) -> dict[str, Category]:
    """Check that ids and paths are filled and unique, and index the categories by id."""
    if not categories:
        raise TaxonomyError("a taxonomy needs at least one category")
    by_id: dict[str, Category] = {}
    place_of_id: dict[str, str] = {}
    place_of_path: dict[tuple[str, ...], str] = {}
    for category, place in zip(categories, places, strict=True):
        category_id, path = category.category_id, category.path
        if not category_id:
            raise TaxonomyError(f"{place}: empty category_id")
        if not path or not all(path):
            raise TaxonomyError(f"{place}: category {category_id!r} has an empty name in its path")
        if category_id in place_of_id:
            raise TaxonomyError(
                f"{place}: category_id {category_id!r} is already at {place_of_id[category_id]}"
            )
        if path in place_of_path:
            raise TaxonomyError(
                f"{place}: category_path {' > '.join(path)!r} is already at {place_of_path[path]}"
            )
        by_id[category_id] = category
        place_of_id[category_id] = place_of_path[path] = place
    return by_id


def _check_parents(by_id: dict[str, Category], places: Sequence[str]) -> None:
    """Check that every parent exists, that there is no cycle, and that paths follow parents."""
    place_of_id = dict(zip(by_id, places, strict=True))
    for category_id, category in by_id.items():
        if category.parent_id is not None and category.parent_id not in by_id:
            raise TaxonomyError(
                f"{place_of_id[category_id]}: parent {category.parent_id!r} of category "
                f"{category_id!r} is not in the taxonomy"
            )
    _check_no_cycle(by_id, place_of_id)
    for category_id, category in by_id.items():
        above = () if category.parent_id is None else by_id[category.parent_id].path
        if category.path[:-1] != above:
            raise TaxonomyError(
                f"{place_of_id[category_id]}: category_path {' > '.join(category.path)!r} of "
                f"category {category_id!r} does not extend that of its parent, "
                f"{' > '.join(above)!r}, by one name"
            )


def _check_no_cycle(by_id: dict[str, Category], place_of_id: dict[str, str]) -> None:
    """Check that following parents from any category ends at a top category."""
    ends: set[str] = set()  # Categories from which the way up is known to end.
    for start in by_id:
        way_up: dict[str, None] = {}  # An ordered set.
        node: str | None = start
        while node is not None and node not in ends:
            if node in way_up:
                seen = list(way_up)
                cycle = [*seen[seen.index(node) :], node]
                raise TaxonomyError(
                    f"{place_of_id[node]}: category {node!r} is its own ancestor, by the parents "
                    + " → ".join(map(repr, cycle))
                )
            way_up[node] = None
            node = by_id[node].parent_id
        ends.update(way_up)


def _digest(categories: Iterable[Category]) -> str:
    """SHA-256 (hex) of the categories as JSON, sorted by id."""
    rows = sorted((c.category_id, c.path, c.parent_id) for c in categories)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
