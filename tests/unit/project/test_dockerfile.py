"""The Dockerfile, which no test builds: its sources are there, and so is what the docs submit."""

import re

from tests.support.paths import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COPIES = re.findall(r"^(?:ADD|COPY) (?:--\S+ )*(\S+) (\S+)$", DOCKERFILE, re.MULTILINE)


def test_sources_are_in_the_checkout_or_made_by_make_package() -> None:
    made = re.findall(r"--output (dist/\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert len(COPIES) == 3
    for source, _ in COPIES:
        assert source in made or list(ROOT.glob(source)), source


def test_sources_are_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert lines[0] == "*"
    assert {source.partition("/")[0] for source, _ in COPIES} == {line[1:] for line in lines[1:]}


def test_spark_is_the_locks() -> None:
    lock = (ROOT / "requirements" / "lock.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"^pyspark==(\S+)", lock, re.MULTILINE)
    assert f"ARG SPARK_IMAGE=spark:{version}-" in DOCKERFILE


def test_files_that_the_docs_name_are_copied() -> None:
    docs = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    folders = [target for _, target in COPIES]
    named = re.findall(r"local://(/opt/seer/\S+)", docs)
    assert named
    for path in named:
        assert path.rpartition("/")[0] + "/" in folders, path
