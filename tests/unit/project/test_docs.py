"""The documentation names only what exists: files, headings, modules, jobs, flags and tests."""

import importlib
import re
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.support.paths import ROOT

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("seer_model/backbones/zoo/*/card.md")]
)
OUR_FOLDERS = (
    *("airflow_dags", "benchmarks", "demo", "docs", "jobs", "requirements", "schemas", "scripts"),
    *("seer_model", "tests"),
)
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


@cache
def parse(page: Path) -> list[Token]:
    """All tokens of a page, those within lines too."""
    tokens = MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))
    return [t for token in tokens for t in (token, *(token.children or ()))]


@cache
def anchors(page: Path) -> frozenset[str]:
    """GitHub's ids of a page's headings."""
    tokens = parse(page)
    titles = [
        tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"
    ]
    return frozenset(
        re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()).replace(" ", "-")
        for title in titles
    )


@cache
def flags_of(job: str) -> frozenset[str]:
    settings = getattr(importlib.import_module(f"jobs.{job}"), job.title().replace("_", ""))
    return frozenset(name.replace("_", "-") for name in settings.model_fields)


def wrong_flags(job: str, text: str) -> list[str]:
    if not (ROOT / "jobs" / f"{job}.py").is_file():
        return [f"there is no job {job}"]
    known = flags_of(job)
    return [
        f"{job} has no --{flag}"
        for flag in FLAG.findall(text)
        if flag not in known and flag.removeprefix("no-") not in known and flag != "help"
    ]


def commands(page: Path) -> list[str]:
    """The lines of all code blocks, continued ones joined."""
    blocks = [token.content for token in parse(page) if token.type in ("fence", "code_block")]
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def code_spans(page: Path) -> list[str]:
    return [token.content for token in parse(page) if token.type == "code_inline"]


def test_the_checks_find_what_they_look_for() -> None:
    readme, jobs = ROOT / "README.md", ROOT / "docs" / "jobs.md"
    assert "the-jobs" in anchors(readme)
    assert any("jobs.train_head --manifest" in line for line in commands(jobs))
    assert wrong_flags("train_head", "--manifest m --nonsense 3") == [
        "train_head has no --nonsense"
    ]
    assert wrong_flags("train_tail", "--manifest m") == ["there is no job train_tail"]


@EVERY_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    links = [str(t.attrs["href"]) for t in parse(page) if t.type == "link_open"]
    links += [str(t.attrs["src"]) for t in parse(page) if t.type == "image"]
    broken = []
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@EVERY_PAGE
def test_commands_name_modules_jobs_and_flags_that_exist(page: Path) -> None:
    wrong = []
    for line in commands(page):
        for module, rest in re.findall(r"python -m ([\w.]+)([^|;&#]*)", line):
            path = ROOT / module.replace(".", "/")
            if module.partition(".")[0] in OUR_FOLDERS:
                if not path.with_suffix(".py").is_file() and not (path / "__main__.py").is_file():
                    wrong.append(f"there is no module {module}")
                elif module.startswith("jobs."):
                    wrong += wrong_flags(module.removeprefix("jobs."), rest)
        for job, rest in re.findall(r"(?<![\w/.])jobs/(\w+)\.py([^|;&#]*)", line):
            wrong += wrong_flags(job, rest)
    for span in code_spans(page):
        if found := re.fullmatch(r"(?:python -m jobs\.)?(\w+)((?: --.*)+)", span):
            job, rest = found.groups()
            if (ROOT / "jobs" / f"{job}.py").is_file():
                wrong += wrong_flags(job, rest)
    assert not wrong


@EVERY_PAGE
def test_paths_in_code_spans_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # It also names files of earlier versions.
    paths = [
        span
        for span in code_spans(page)
        if re.fullmatch(rf"(?:{'|'.join(OUR_FOLDERS)})/[\w./-]*", span)
    ]
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_page_of_the_jobs_has_every_job_and_its_flags() -> None:
    text = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"(?ms)^## ([a-z_]+)$(.*?)(?=^## |\Z)", text))
    jobs = {path.stem for path in (ROOT / "jobs").glob("[a-z]*.py")} - {"udf"}
    assert sections.keys() == jobs
    wrong = []
    for job, section in sections.items():
        # The first cell of a row names flags.
        for cell in re.findall(r"(?m)^\| (`--.*?) \|", section):
            wrong += wrong_flags(job, cell)
    assert not wrong


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_tests_that_the_page_on_reliability_names_exist() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\btest_\w+", text))
    assert len(named) > 30
    assert not named - {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
