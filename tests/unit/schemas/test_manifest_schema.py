"""The manifest's columns: what passes, and the message for what does not."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import DataContractError
from schemas.manifest import MANIFEST, check_manifest, manifest_columns


def without(*names: str) -> pa.Schema:
    return pa.schema([field for field in MANIFEST if field.name not in names])


def with_type(name: str, kind: pa.DataType) -> pa.Schema:
    return MANIFEST.set(MANIFEST.get_field_index(name), pa.field(name, kind))


def message(schema: pa.Schema) -> str:
    with pytest.raises(DataContractError) as caught:
        check_manifest(schema, "photos/ds=2026-01-31")
    text = str(caught.value)
    assert text.startswith("photos/ds=2026-01-31: ")
    assert "\n" not in text
    return text.removeprefix("photos/ds=2026-01-31: ")


def test_columns_and_types_of_the_contract():
    assert {field.name: str(field.type) for field in MANIFEST} == {
        "listing_id": "string",
        "image_index": "int32",
        "image_uri": "string",
        "image_bytes": "binary",
        "image_key": "string",
        "category_id": "string",
        "split": "string",
        "slices": "map<string, string>",
        "attributes": "map<string, string>",
        "concepts": "map<string, bool>",
        "updated_at": "timestamp[us, tz=UTC]",
    }
    check_manifest(MANIFEST, "here")


@pytest.mark.parametrize("photo", ["image_uri", "image_bytes"])
def test_two_columns_and_one_for_the_photo_are_enough(photo):
    required = {"listing_id", "image_index", photo}
    check_manifest(without(*set(MANIFEST.names) - required), "here")


def test_extra_columns_are_ignored():
    check_manifest(MANIFEST.append(pa.field("price", pa.decimal128(9, 2))), "here")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("listing_id", pa.large_string()),
        ("listing_id", pa.string_view()),
        ("split", pa.dictionary(pa.int32(), pa.string())),
        ("image_bytes", pa.large_binary()),
        ("image_bytes", pa.binary_view()),
        ("image_index", pa.int64()),
        ("image_index", pa.int16()),
        ("image_index", pa.uint32()),
        ("slices", pa.map_(pa.large_string(), pa.large_string())),
        ("updated_at", pa.timestamp("ns")),
        ("updated_at", pa.timestamp("ms", tz="Europe/Berlin")),
        ("image_bytes", pa.null()),
        ("split", pa.null()),
        ("slices", pa.null()),
    ],
)
def test_harmless_variants_pass(name, kind):
    check_manifest(with_type(name, kind), "here")


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("listing_id", pa.int64(), "column listing_id is int64, expected string"),
        ("image_index", pa.string(), "column image_index is string, expected int32"),
        ("image_index", pa.float64(), "column image_index is double, expected int32"),
        ("image_uri", pa.binary(), "column image_uri is binary, expected string"),
        ("image_bytes", pa.string(), "column image_bytes is string, expected binary"),
        ("listing_id", pa.null(), "column listing_id is null, expected string"),
        ("image_index", pa.uint64(), "column image_index is uint64, expected int32"),
        ("image_key", pa.binary(32), "column image_key is fixed_size_binary[32], expected string"),
        ("category_id", pa.int32(), "column category_id is int32, expected string"),
        ("split", pa.bool_(), "column split is bool, expected string"),
        ("slices", pa.string(), "column slices is string, expected map<string, string>"),
        (
            "slices",
            pa.map_(pa.string(), pa.int32()),
            "column slices is map<string, int32>, expected map<string, string>",
        ),
        (
            "updated_at",
            pa.date32(),
            "column updated_at is date32[day], expected timestamp[us, tz=UTC]",
        ),
    ],
)
def test_a_wrong_type_names_the_column_and_both_types(name, kind, expected):
    assert message(with_type(name, kind)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("listing_id", "column listing_id is missing, expected string"),
        ("image_index", "column image_index is missing, expected int32"),
    ],
)
def test_a_missing_column_is_named(name, expected):
    assert message(without(name)) == expected


def test_one_column_for_the_photo_is_needed():
    assert message(without("image_uri", "image_bytes")) == (
        "columns image_uri and image_bytes are both missing, "
        "expected image_uri (string) or image_bytes (binary)"
    )


def test_a_column_that_appears_twice():
    twice = MANIFEST.append(MANIFEST.field("listing_id"))
    assert message(twice) == "column listing_id appears 2 times, expected once"


def test_all_problems_come_in_one_line():
    schema = pa.schema([("image_index", pa.string()), ("image_uri", pa.int8())])
    assert message(schema) == (
        "column listing_id is missing, expected string; "
        "column image_index is string, expected int32; "
        "column image_uri is int8, expected string"
    )


@pytest.mark.parametrize(
    ("name", "values", "kind", "options"),
    [
        ("split", pa.array([None, None], pa.int32()), pa.null(), {}),
        ("split", pa.array([None, None], pa.int32()), pa.int32(), {"write_statistics": False}),
        ("split", pa.array([None, 3], pa.int32()), pa.int32(), {}),
        ("split", pa.nulls(2), pa.null(), {}),
        ("split", pa.array([None, None], pa.string()), pa.string(), {}),
        ("category_id", pa.array([None, None], pa.float64()), pa.null(), {"row_group_size": 1}),
        ("slices", pa.array([None, None], pa.list_(pa.int8())), pa.null(), {}),
        ("image_index", pa.array([None, None], pa.int64()), pa.int64(), {}),
        ("updated_at", pa.array([0, 1], pa.timestamp("ns")), pa.timestamp("ns"), {}),
        (
            "updated_at",
            pa.array([0, 1], pa.timestamp("ns")),
            pa.timestamp("us"),
            {"use_deprecated_int96_timestamps": True},
        ),
    ],
)
def test_columns_of_a_file(name, values, kind, options):
    file = io.BytesIO()
    extra = pa.array([1, 2], pa.float16())
    pq.write_table(pa.table({"Split": extra, name: values, "extra": extra}), file, **options)
    assert manifest_columns(pq.read_metadata(file)) == pa.schema([(name, kind)])
