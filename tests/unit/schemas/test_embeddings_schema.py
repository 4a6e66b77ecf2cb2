"""The embedding store's columns."""

from schemas.embeddings import EMBEDDINGS


def test_columns_and_types_of_the_contract():
    assert [(field.name, str(field.type), field.nullable) for field in EMBEDDINGS] == [
        ("image_key", "string", False),
        ("backbone_digest", "string", False),
        ("vector", "binary", True),
        ("reject_reason", "string", True),
        (
            "hashes",
            "struct<made_by: string, whole: binary, unframed: binary, quality: int32>",
            True,
        ),
        (
            "text",
            "struct<made_by: string, "
            "lines: list<item: struct<line: string, score: float, share: float>>>",
            True,
        ),
        (
            "colours",
            "struct<made_by: string, colours: list<item: struct<name: string, share: float>>>",
            True,
        ),
        ("added_at", "timestamp[us, tz=UTC]", True),
    ]
