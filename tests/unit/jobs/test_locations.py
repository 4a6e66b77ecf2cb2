"""Flags that name a folder or a table."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import categorize_listings, pretrain_backbone
from jobs.command.folders import LocalFolder
from jobs.command.locations import Table
from jobs.stages.scratch import has_been_left, is_in_use, leave, mark_as_mine, scratch_space
from tests.support.embedding_rows import error_line

PARTS = st.lists(st.text("abcÄ沙 _-0'\"\\$", min_size=1).filter(lambda p: " " not in p), min_size=3)


@given(PARTS)
def test_a_table_has_its_parts(parts: list[str]) -> None:
    table = Table("table:" + ".".join(parts))
    assert table.parts == parts
    assert table.catalog == parts[0]
    assert table.sql == ".".join(f"`{part}`" for part in parts)
    assert table.sql == f"{table.namespace}.`{parts[-1]}`" == f"`{parts[0]}`.{table.in_catalog}"


@given(st.text(), st.sampled_from(" `\t\n"))
def test_what_is_no_table_is_refused(text: str, bad: str) -> None:
    for value in (f"table:{text}{bad}.b.c", f"table:..{text}", f"table:{text.replace('.', '')}.b"):
        with pytest.raises(ValueError, match="is not table:CATALOG"):
            Table(value)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--output", "table:a.b"), "--output: table:a.b is not table:CATALOG.NAMESPACE.NAME"),
        (("--output", "table:a.`b`.c"), "--output: table:a.`b`.c is not table:"),
        (("--manifest", "table:"), "--manifest: table: is not table:CATALOG.NAMESPACE.NAME"),
        (("--output", "s3a://b/c"), "--output: s3a://b/c is no local or mounted folder"),
        (("--embeddings", "hdfs://h/c"), "name a table instead: table:CATALOG.NAMESPACE.NAME"),
    ],
)
def test_refusals_are_one_line(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], complaint: str
) -> None:
    common = ("--manifest", "m", "--ds", "2026-11-25", "--output", "o")
    assert categorize_listings.main([*common, *flags]) == 2
    assert complaint in error_line(capsys)


def test_pretraining_takes_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--manifest", "table:a.b.c", "--output", "o"]
    assert pretrain_backbone.main(flags) == 2
    assert "--manifest: table:a.b.c: photos are read without Spark" in error_line(capsys)


def test_scratch_space_goes_with_its_run_and_with_those_that_ended(tmp_path: Path) -> None:
    base = LocalFolder(tmp_path)
    left, in_use, of_others = (base / f"_scratch-{name}" for name in ("left", "used", "others"))
    for folder in (left, in_use, of_others):
        mark_as_mine(folder)
    leave(left)
    of_others.write_text("_process", "another-host boot 1 2 3")
    assert (has_been_left(left), is_in_use(in_use), is_in_use(of_others)) == (True, True, False)
    (tmp_path / "precious").mkdir()
    with scratch_space(base) as scratch:
        assert scratch.path is not None
        (scratch.path / "deep").mkdir()
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {scratch.name, in_use.name, of_others.name, "precious"}
    assert {path.name for path in tmp_path.iterdir()} == names - {scratch.name}
