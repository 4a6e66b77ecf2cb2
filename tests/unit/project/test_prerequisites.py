"""The prerequisite check: which Pythons and Javas it takes, and what it says of others."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


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
