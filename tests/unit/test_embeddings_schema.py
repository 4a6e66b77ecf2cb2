"""The embedding store's rows: a vector of the right length or a permanent reason."""

import struct
from typing import Any

import pyarrow as pa
import pytest

from schemas.embeddings import EMBEDDINGS, check_embeddings
from schemas.errors import DataContractError
from schemas.rejects import RejectReason

WIDTH = 4
KEPT: dict[str, Any] = {
    "image_key": "k-vector",
    "backbone_digest": "ab" * 32,
    "vector": struct.pack("<4e", 0.5, -1.0, 2.0, 0.0),
    "reject_reason": None,
}
REFUSED = KEPT | {"image_key": "k-refused", "vector": None, "reject_reason": "truncated"}
LOOSE = pa.schema([field.with_nullable(True) for field in EMBEDDINGS])


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=LOOSE)


def message(found: pa.Table) -> str:
    with pytest.raises(DataContractError) as caught:
        check_embeddings(found, WIDTH, "store")
    text = str(caught.value)
    assert text.startswith("store: ")
    assert "\n" not in text
    return text.removeprefix("store: ")


def test_columns_and_types_of_the_contract():
    assert [(field.name, str(field.type), field.nullable) for field in EMBEDDINGS] == [
        ("image_key", "string", False),
        ("backbone_digest", "string", False),
        ("vector", "binary", True),
        ("reject_reason", "string", True),
    ]


def test_a_vector_or_a_reason_passes():
    check_embeddings(table(KEPT, REFUSED), WIDTH, "store")
    check_embeddings(EMBEDDINGS.empty_table(), WIDTH, "store")


def test_other_layouts_pass():
    view = pa.schema(
        [
            ("image_key", pa.string_view()),
            ("backbone_digest", pa.dictionary(pa.int32(), pa.string())),
            ("vector", pa.binary_view()),
            ("reject_reason", pa.large_string()),
        ]
    )
    check_embeddings(table(KEPT, REFUSED).cast(view), WIDTH, "store")


@pytest.mark.parametrize("reason", [reason for reason in RejectReason if reason.permanent])
def test_permanent_reasons_pass(reason):
    check_embeddings(table(REFUSED | {"reject_reason": str(reason)}), WIDTH, "store")


@pytest.mark.parametrize(
    "reason", [*(reason.value for reason in RejectReason if not reason.permanent), "unheard of"]
)
def test_other_reasons_are_refused(reason):
    assert message(table(KEPT, REFUSED | {"reject_reason": reason})) == (
        f"column reject_reason is {reason!r}, expected a permanent one: too_large, empty_file, "
        "not_an_image, truncated, unreadable (image_key 'k-refused', row 1)"
    )


@pytest.mark.parametrize("size", [0, 7, 9, 16])
def test_a_vector_of_another_length(size):
    assert message(table(REFUSED, KEPT | {"vector": b"x" * size})) == (
        f"column vector has {size} bytes, expected 8 for 4 float16 values "
        "(image_key 'k-vector', row 1)"
    )


def test_both_a_vector_and_a_reason():
    assert message(table(KEPT | {"reject_reason": "truncated"})) == (
        "column reject_reason is 'truncated', expected null beside a vector "
        "(image_key 'k-vector', row 0)"
    )


def test_neither_a_vector_nor_a_reason():
    assert message(table(KEPT | {"vector": None})) == (
        "column reject_reason is null, expected a reason where there is no vector "
        "(image_key 'k-vector', row 0)"
    )


@pytest.mark.parametrize("name", ["image_key", "backbone_digest"])
def test_no_null_in_a_key(name):
    assert message(table(KEPT | {name: None})).startswith(f"column {name} is null, expected")


@pytest.mark.parametrize("name", EMBEDDINGS.names)
def test_a_missing_column_is_named(name):
    assert message(table(KEPT).drop_columns(name)).startswith(f"column {name} is missing, expected")


def test_a_wrong_type_is_named():
    found = table(KEPT).drop_columns("vector")
    found = found.append_column("vector", pa.array([[0.5] * WIDTH], pa.list_(pa.float32())))
    assert message(found) == "column vector is list<item: float>, expected binary"
