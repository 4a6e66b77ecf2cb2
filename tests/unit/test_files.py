"""Untrusted files: hostile JSON and safetensors are refused in one line."""

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, Field

from schemas.errors import BundleError
from seer_model.backbones.torch_files import load_tensors
from seer_model.files import Record, parse_record, read_json
from tests.support.refusals import refusal

# Records


def no_vowels(text: str) -> str:
    if set(text) & set("aeiou"):
        raise ValueError("must have no vowels")
    return text


class Inner(Record):
    share: Annotated[float, Field(ge=0, le=1)]


class Outer(Record):
    name: Annotated[str, AfterValidator(no_vowels)]
    inner: Inner
    sizes: tuple[int, ...]


GOOD: dict[str, Any] = {"name": "x", "inner": {"share": 1}, "sizes": [1, 2]}


def test_a_record_is_parsed() -> None:
    parsed = parse_record(GOOD, Outer, Path("x.json"))
    assert parsed == Outer(name="x", inner=Inner(share=1.0), sizes=(1, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": [1, "2"]}, "sizes.1 should be a valid integer, not '2'"),
        ({"sizes": [True]}, "sizes.0 should be a valid integer, not True"),
        ({"sizes": 3}, "sizes should be a valid array, not 3"),
        ({"inner": {"share": 2}}, "inner.share should be less than or equal to 1, not 2"),
        ({"inner": {"share": float("nan")}}, "inner.share should be a finite number, not nan"),
        ({"inner": {"share": 10**400}}, "inner.share should be a finite number, not 10000"),
        ({"inner": {}}, "key inner.share is missing"),
        ({"inner": {"share": 1, "sahre": 1}}, "unknown key inner.sahre"),
        ({"inner": [1]}, "inner should be an object, not [1]"),
        ({"a\nb" * 5000: 1}, "unknown key 'a\\nb"),
        ({"name": "aeiou\n" * 5000}, "name must have no vowels, not 'aeiou\\n"),
        ({"name": "\ud800"}, "Invalid JSON"),
    ],
)
def test_a_refusal_is_one_short_line_with_file_key_and_expectation(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError) as caught:
        parse_record(GOOD | change, Outer, Path("x.json"))
    text = str(caught.value)
    assert text.startswith("x.json: ")
    assert message in text
    assert len(text.splitlines()) == 1
    assert len(text) < 300


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text('{"name":' * 500 + "1" + "}" * 500, encoding="utf-8")
    with pytest.raises(BundleError, match=r"deep\.json: .*"):
        parse_record(read_json(path), Outer, path)


# Safetensors


def header(entries: str, size: int | None = None, body: bytes = b"") -> bytes:
    data = entries.encode()
    return (len(data) if size is None else size).to_bytes(8, "little") + data + body


def entry(name: str, kind: str, shape: list[int], start: int, end: int) -> str:
    return f'"{name}":' + json.dumps({"dtype": kind, "shape": shape, "data_offsets": [start, end]})


ONE, TWO = entry("a", "F32", [1], 0, 4), entry("b", "F32", [1], 0, 4)
HUGE = entry("a", "F32", [1 << 40], 0, 4)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(header("{}", 1 << 62), id="endless header"),
        pytest.param(header(" " * (9 << 20)), id="header of 9 MB"),
        pytest.param(header("[" * 1_000_000), id="deep"),
        pytest.param(header("\x80\x04cos\nsystem"), id="pickle"),
        pytest.param(header(f"{{{ONE},{ONE}}}", body=bytes(4)), id="one twice"),
        pytest.param(header(f"{{{ONE},{TWO}}}", body=bytes(4)), id="overlap"),
        pytest.param(header(f"{{{entry('a', 'F32', [2], 0, 4)}}}", body=bytes(4)), id="short"),
        pytest.param(header(f"{{{HUGE}}}", body=bytes(4)), id="terabytes"),
        pytest.param(header(f"{{{entry('a', 'F32', [-1], 0, 4)}}}", body=bytes(4)), id="negative"),
        pytest.param(header(f"{{{entry('a', 'F32', [1], 4, 8)}}}", body=bytes(8)), id="hole"),
        pytest.param(header(f"{{{ONE}}}", body=bytes(2)), id="ends early"),
        pytest.param(header(f"{{{ONE}}}", body=bytes(999)), id="goes on"),
        pytest.param(header(f"{{{entry('a', 'X9', [1], 0, 4)}}}", body=bytes(4)), id="no type"),
        *(
            pytest.param(header(f"{{{entry('a', kind, [1], 0, size)}}}", body=bytes(size)), id=kind)
            for kind, size in (
                ("F64", 8), ("I8", 1), ("U8", 1), ("I32", 4), ("BOOL", 1), ("C64", 8),
                ("F8_E4M3", 1), ("F8_E5M2", 1), ("U64", 8),
            )
        ),
    ],
)  # fmt: skip
def test_hostile_safetensors_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tensors.safetensors"
    path.write_bytes(data)
    refusal(path, load_tensors)


def test_a_name_of_lines_stays_in_one(tmp_path: Path) -> None:
    path = tmp_path / "tensors.safetensors"
    path.write_bytes(
        header(f"{{{entry('a' + chr(92) + 'n' * 9000, 'F64', [1], 0, 8)}}}", body=bytes(8))
    )
    assert "is of type torch.float64" in refusal(path, load_tensors)
