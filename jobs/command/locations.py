"""Where data lives: a path, or a table of one of Spark's catalogs."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import PlainValidator

__all__ = ["Location", "ManifestLocation", "Table"]

_PREFIX = "table:"
_PART = re.compile(r"[^.`\s]+")


class Table(str):
    """A table's name: `table:CATALOG.NAMESPACE.NAME`.

    Raises:
        ValueError: It is not of this form.
    """

    def __new__(cls, value: str) -> "Table":
        """Check the name."""
        name = super().__new__(cls, value)
        if not value.startswith(_PREFIX):
            raise ValueError(f"{value} does not begin with {_PREFIX}")
        if len(name.parts) < 3 or not all(map(_PART.fullmatch, name.parts)):
            raise ValueError(f"{value} is not {_PREFIX}CATALOG.NAMESPACE.NAME")
        return name

    @property
    def parts(self) -> list[str]:
        """Catalog, namespace (one part or more) and name."""
        return self.removeprefix(_PREFIX).split(".")

    @property
    def catalog(self) -> str:
        """The catalog: NAME in Spark's setting `spark.sql.catalog.NAME`."""
        return self.parts[0]

    @property
    def sql(self) -> str:
        """The whole name, quoted for SQL."""
        return _quoted(self.parts)

    @property
    def in_catalog(self) -> str:
        """Namespace and name, quoted for SQL."""
        return _quoted(self.parts[1:])

    @property
    def namespace(self) -> str:
        """Catalog and namespace, quoted for SQL."""
        return _quoted(self.parts[:-1])


def _quoted(parts: list[str]) -> str:
    return ".".join(f"`{part}`" for part in parts)


def _manifest_location(value: object) -> object:
    return Table(value) if isinstance(value, str) and value.startswith(_PREFIX) else value


def _location(value: object) -> object:
    location = _manifest_location(value)
    if isinstance(location, Table | Path):
        return location
    if not isinstance(location, str):
        raise ValueError("is neither a folder nor a table")
    if "://" in location:
        raise ValueError(
            f"{location} is no local or mounted folder, and nothing there renames atomically; "
            f"name a table instead: {_PREFIX}CATALOG.NAMESPACE.NAME"
        )
    return Path(location)


Location = Annotated[Path | Table, PlainValidator(_location)]
"""A folder on a local or mounted file system, or a table."""
ManifestLocation = Annotated[str | Table, PlainValidator(_manifest_location)]
"""A folder on any file system that Spark reads, or a table."""
