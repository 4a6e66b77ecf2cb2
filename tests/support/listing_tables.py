"""A folder of photos with a table of listings, and what becomes of them in a manifest."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

PhotoBytes = Callable[..., bytes]
Rows = list[dict[str, Any]]

DS = "2026-11-25"
LISTINGS = """\
listing_id,title,image_index,path,category_id,split
L1,"Boots, brown",0,shoes/b.jpg,boots,train
L1,"Boots, brown",1,shoes/nosuch.jpg,boots,train
L2,Cap,0,hat.png,caps,val
L3,,0,hat.png,,
"""


def table(tmp_path: Path, text: str | bytes, name: str = "listings.csv") -> str:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def columns(rows: Rows, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in rows]
