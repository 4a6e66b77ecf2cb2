"""The build: Makefile, lock files, and the zip for Spark."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from setuptools import find_packages

from tests.support.paths import ROOT

PACKAGES = {"jobs", "schemas", "seer_model"}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


# --- the zip -------------------------------------------------------------------------------------


def pack(root: Path, output: Path) -> subprocess.CompletedProcess[str]:
    script = ROOT / "scripts" / "package_zip.py"
    command = [sys.executable, str(script), "--root", str(root), "--output", str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def names_in(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return archive.namelist()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for package in PACKAGES:
        (root / package).mkdir(parents=True)
        (root / package / "__init__.py").write_text(f'"""{package}."""\n', "utf-8")
    (root / "seer_model" / "zoo").mkdir()
    (root / "seer_model" / "zoo" / "tiny.safetensors").write_bytes(bytes(range(256)))
    (root / "seer_model" / "zoo" / "tiny.json").write_text("{}", "utf-8")
    return root


def test_zip_of_the_project_holds_the_three_packages_and_no_caches(tmp_path: Path) -> None:
    output = tmp_path / "dist" / "project.zip"

    result = pack(ROOT, output)

    assert result.returncode == 0, result.stderr
    names = names_in(output)
    assert {name.split("/")[0] for name in names} == PACKAGES
    assert {f"{package}/__init__.py" for package in PACKAGES} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_zip_holds_sources_and_data_sorted_and_nothing_else(tree: Path, tmp_path: Path) -> None:
    (tree / "jobs" / "__pycache__").mkdir()
    for unwanted in ("__pycache__/a.cpython-311.pyc", "b.pyc", ".DS_Store", "c.py~"):
        (tree / "jobs" / unwanted).write_bytes(b"x")
    (tree / "tests").mkdir()
    (tree / "tests" / "test_x.py").write_text("", "utf-8")

    pack(tree, tmp_path / "a.zip")

    assert names_in(tmp_path / "a.zip") == [
        "jobs/__init__.py",
        "schemas/__init__.py",
        "seer_model/__init__.py",
        "seer_model/zoo/tiny.json",
        "seer_model/zoo/tiny.safetensors",
    ]


def test_zip_is_the_same_bytes_whatever_the_files_times_and_modes(
    tree: Path, tmp_path: Path
) -> None:
    pack(tree, tmp_path / "a.zip")
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    for path in copy.rglob("*.py"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o755)
    pack(copy, tmp_path / "b.zip")

    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_packages_import_from_the_zip(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "a.zip")
    code = (
        "import jobs, seer_model, importlib.resources as resources\n"
        "print(jobs.__file__)\n"
        "data = resources.files('seer_model') / 'zoo' / 'tiny.safetensors'\n"
        "print(len(data.read_bytes()))\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "a.zip")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    module, size = result.stdout.split("\n")[:2]
    assert "a.zip" in module
    assert size == "256"


def test_zip_of_a_tree_without_a_package_is_refused_in_one_line(tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(tree / "schemas")

    result = pack(tree, tmp_path / "a.zip")

    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "no package 'schemas'" in result.stderr
    assert not list(tmp_path.glob("*.zip*"))


def test_wheel_holds_the_package_data_that_the_zip_holds(tmp_path: Path) -> None:
    """The zip takes every file; the wheel takes what [tool.setuptools.package-data] names."""
    pack(ROOT, tmp_path / "a.zip")
    data = [PurePosixPath(n) for n in names_in(tmp_path / "a.zip") if not n.endswith(".py")]
    package_data = PYPROJECT["tool"]["setuptools"]["package-data"]

    def is_named(path: PurePosixPath) -> bool:
        return any(
            path.relative_to(package).match(pattern)
            for package in path.parents
            if (ROOT / package / "__init__.py").is_file()
            for key in ("*", ".".join(package.parts))
            for pattern in package_data.get(key, [])
        )

    assert [str(path) for path in data if not is_named(path)] == []


def test_wheel_holds_the_packages_of_the_zip_and_no_demo() -> None:
    find = PYPROJECT["tool"]["setuptools"]["packages"]["find"]
    found = find_packages(str(ROOT), include=find["include"])
    assert {name.split(".")[0] for name in found} == PACKAGES
    assert "demo" in find_packages(str(ROOT))


# --- the lock ------------------------------------------------------------------------------------

LOCKS = ["lock.txt", "airflow.txt", "peers.txt", "spark-oldest.txt", "spark-newest.txt", "uv.txt"]


def locked_requirements(name: str) -> list[str]:
    """Each requirement on one line, its hashes included."""
    text = (ROOT / "requirements" / name).read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [line for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_requirement_has_a_version_and_hashes(name: str) -> None:
    requirements = locked_requirements(name)

    assert requirements
    bad = [
        r for r in requirements if not re.match(r"[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", r)
    ]
    assert bad == []


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_no_address(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text("utf-8")

    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text


def test_lock_covers_every_dependency_of_the_project() -> None:
    locked: dict[str, set[Version]] = {}
    for line in locked_requirements("lock.txt"):
        name, version = line.split(" ")[0].split("==")
        locked.setdefault(canonicalize_name(name), set()).add(Version(version))
    project = PYPROJECT["project"]
    needed = [
        Requirement(text)
        for text in project["dependencies"] + project["optional-dependencies"]["dev"]
    ]

    missing = [
        str(requirement)
        for requirement in needed
        if not any(
            requirement.specifier.contains(version, prereleases=True)
            for version in locked.get(canonicalize_name(requirement.name), set())
        )
    ]

    assert missing == [], "run `make lock`"


# --- the Makefile --------------------------------------------------------------------------------

TARGETS = [
    *("setup", "demo", "lake", "airflow", "unit", "test", "test-lake", "lint", "format"),
    *("package", "lock"),
]


def make(*arguments: str, **variables: str) -> str:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))

    listed = re.findall(r"^  ([a-z-]+) +\S", make("help"), re.MULTILINE)

    assert set(listed) == targets
    assert {*TARGETS, "clean"} < targets
    assert make() == make("help")


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_has_a_recipe_that_make_can_read(target: str) -> None:
    assert make("--dry-run", target)
