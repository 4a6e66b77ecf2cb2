"""Fetch the Java libraries that a file lists, each checked by its SHA-256.

    python scripts/fetch_jars.py requirements/jars.txt .jars

Spark comes with Ivy, which knows the public repository of Maven.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyspark


class Jar(NamedTuple):
    """A library: its coordinates, and the SHA-256 (hex) of its file."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.artifact}-{self.version}.jar"


def read_list(path: Path) -> Iterator[Jar]:
    """Read lines `group:artifact:version sha256`; `#` begins a comment."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if words := line.partition("#")[0].split():
            coordinates, sha256 = words
            group, artifact, version = coordinates.split(":")
            yield Jar(group, artifact, version, sha256)


def fetch(jar: Jar, folder: Path) -> None:
    """Fetch a library unless the folder has it.

    Raises:
        SystemExit: It cannot be fetched, or its file is another than the list says.
    """
    if (folder / jar.name).exists():
        return
    java = Path(os.environ["JAVA_HOME"], "bin", "java") if "JAVA_HOME" in os.environ else "java"
    jars = Path(pyspark.__file__).parent / "jars"
    ivy = [str(path) for pattern in ("ivy-*", "commons-cli-*") for path in jars.glob(pattern)]
    with tempfile.TemporaryDirectory(dir=folder) as work:
        command = [java, "-cp", os.pathsep.join(ivy), "org.apache.ivy.Main", "-cache", work]
        command += ["-notransitive", "-dependency", jar.group, jar.artifact, jar.version]
        command += ["-confs", "default", "-retrieve", f"{work}/got/[artifact].[ext]"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        found = Path(work, "got", f"{jar.artifact}.jar")
        if done.returncode or not found.exists():
            sys.exit(f"{done.stdout}{done.stderr}fetch_jars: {jar.name} cannot be fetched")
        with found.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != jar.sha256:
            sys.exit(f"fetch_jars: {jar.name} has SHA-256 {sha256}, the list says {jar.sha256}")
        found.replace(folder / jar.name)


def main(jars_file: Path, folder: Path) -> None:
    """Make the folder hold the listed libraries, and no others."""
    folder.mkdir(exist_ok=True)
    jars = list(read_list(jars_file))
    for jar in jars:
        fetch(jar, folder)
    for path in set(folder.glob("*.jar")) - {folder / jar.name for jar in jars}:
        path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
