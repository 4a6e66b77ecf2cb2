"""The build: Makefile, prerequisite check, lock files, and the zip for Spark."""

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

ROOT = Path(__file__).parents[2]
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


# --- the prerequisites ---------------------------------------------------------------------------


def write_command(folder: Path, name: str, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    (folder / name).chmod(0o755)


def write_java(folder: Path, version: str) -> None:
    """A java that prints what the real one prints, on standard error."""
    write_command(
        folder,
        "java",
        f"""echo 'Picked up JAVA_TOOL_OPTIONS: -Dx=y' >&2
        echo 'openjdk version "{version}" 2025-04-15' >&2
        echo 'OpenJDK Runtime Environment (build {version}+6)' >&2""",
    )


def write_python(folder: Path, version: str, machine: str = "linux-x86_64") -> None:
    write_command(folder, "python3", f"echo '{version} {machine}'")


def check(folder: Path, *names: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the check with nothing on the PATH but what the folder holds."""
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / "check_prerequisites.sh"), *names],
        env={"PATH": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    return tmp_path / "bin"


@pytest.mark.parametrize("java", ["17.0.15", "17", "21.0.5", "21-ea"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_supported_versions_pass_silently(commands: Path, python: str, java: str) -> None:
    write_python(commands, python)
    write_java(commands, java)

    result = check(commands)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_python_of_these_tests_passes(commands: Path) -> None:
    result = check(commands, "python", PYTHON=sys.executable)

    assert (result.returncode, result.stderr) == (0, "")


def test_missing_java_says_what_to_install(commands: Path) -> None:
    result = check(commands, "java")

    assert result.returncode == 1
    assert result.stderr == (
        "Java 17 or 21 is needed for Spark: install openjdk-17-jre-headless (Debian/Ubuntu) "
        "or temurin@17 (Homebrew); found: none\n"
    )


@pytest.mark.parametrize(
    ("version", "found"),
    [("11.0.2", "Java 11.0.2"), ("1.8.0_392", "Java 1.8.0_392"), ("25", "Java 25")],
)
def test_unsupported_java_is_named(commands: Path, version: str, found: str) -> None:
    write_java(commands, version)

    result = check(commands, "java")

    assert result.returncode == 1
    assert result.stderr.startswith("Java 17 or 21 is needed for Spark: install ")
    assert result.stderr.endswith(f"; found: {found} ('{commands / 'java'}')\n")


def test_java_that_only_prints_a_message_counts_as_none(commands: Path) -> None:
    """As /usr/bin/java does on a Mac without Java."""
    write_command(commands, "java", "echo 'Unable to locate a Java Runtime.' >&2; exit 1")

    result = check(commands, "java")

    assert result.returncode == 1
    assert "found: none" in result.stderr


def test_java_home_goes_before_the_path(commands: Path, tmp_path: Path) -> None:
    write_java(commands, "11.0.2")
    write_java(tmp_path / "a jdk" / "bin", "21.0.5")

    assert check(commands, "java", JAVA_HOME=str(tmp_path / "a jdk")).returncode == 0


def test_java_home_without_java_is_not_passed_over(commands: Path) -> None:
    """Spark would not look any further either."""
    write_java(commands, "17.0.15")

    result = check(commands, "java", JAVA_HOME="/no/such/jdk")

    assert result.returncode == 1
    assert "JAVA_HOME is '/no/such/jdk', which has no bin/java" in result.stderr


@pytest.mark.parametrize("version", ["2.7", "3.10", "3.14"])
def test_unsupported_python_is_named(commands: Path, version: str) -> None:
    write_python(commands, version)

    result = check(commands, "python")

    assert result.returncode == 1
    assert result.stderr.startswith("Python 3.11, 3.12 or 3.13 is needed: install ")
    assert result.stderr.endswith(f"; found: Python {version} ('python3')\n")


def test_intel_mac_takes_python_up_to_3_12(commands: Path) -> None:
    write_python(commands, "3.12", "darwin-x86_64")
    assert check(commands, "python").returncode == 0

    write_python(commands, "3.13", "darwin-x86_64")
    result = check(commands, "python")
    assert result.returncode == 1
    assert result.stderr.startswith("Python 3.11 or 3.12 is needed on an Intel Mac: install ")


def test_python_that_is_missing_or_broken_is_named(commands: Path) -> None:
    missing = check(commands, "python", PYTHON="python3.12")
    assert missing.returncode == 1
    assert missing.stderr.endswith("; found: none (no command 'python3.12')\n")

    write_command(commands, "python3", "echo 'pyenv: python3: command not found' >&2; exit 127")
    broken = check(commands, "python")
    assert broken.returncode == 1
    assert broken.stderr.endswith("; found: 'python3', which does not run\n")


def test_python_without_venv_names_the_package(commands: Path) -> None:
    write_command(
        commands,
        "python3",
        """case $2 in *ensurepip*) exit 1 ;; *) echo '3.11 linux-x86_64' ;; esac""",
    )

    result = check(commands, "python")

    assert result.returncode == 1
    assert "install python3-venv (Debian/Ubuntu)" in result.stderr


def test_every_failing_check_has_its_line(commands: Path) -> None:
    result = check(commands)

    assert result.returncode == 1
    assert [line.split(" ")[0] for line in result.stderr.splitlines()] == ["Python", "Java"]


# --- the lock ------------------------------------------------------------------------------------

LOCKS = ["lock.txt", "uv.txt"]


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
    assert {"setup", "demo", "test", "lint", "format", "package", "lock", "clean"} < targets
    assert make() == make("help")


@pytest.mark.parametrize("target", ["setup", "demo", "test", "lint", "format", "package", "lock"])
def test_every_target_has_a_recipe_that_make_can_read(target: str) -> None:
    assert make("--dry-run", target)
