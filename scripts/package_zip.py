"""Pack the project's packages into one zip for ``spark-submit --py-files``.

The zip is reproducible: entries are sorted, stored uncompressed (compressors differ between
machines), and have a fixed time and fixed permissions.

Run as ``python scripts/package_zip.py --output dist/seer-categories.zip``; standard library only.
"""

import argparse
import sys
import zipfile
from pathlib import Path

PACKAGES = ("jobs", "schemas", "seer_model")

# The earliest time that a zip can hold.
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)
_PERMISSIONS = 0o100644
_UNIX = 3
_CACHE_SUFFIXES = {".pyc", ".pyo"}


def package_files(root: Path) -> list[Path]:
    """List what goes into the zip: sources and package data, no caches or hidden files.

    Args:
        root: The folder that holds the packages.

    Returns:
        Paths relative to `root`, sorted by their POSIX names.

    Raises:
        FileNotFoundError: A package, or its ``__init__.py``, is not in `root`.
    """
    files: list[Path] = []
    for package in PACKAGES:
        if not (root / package / "__init__.py").is_file():
            raise FileNotFoundError(f"no package {package!r} in {root}: run this in the checkout")
        files += [
            path.relative_to(root)
            for path in (root / package).rglob("*")
            if path.is_file() and _is_wanted(path.relative_to(root))
        ]
    return sorted(files, key=Path.as_posix)


def _is_wanted(path: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__pycache__" for part in path.parts)
    return not hidden and path.suffix not in _CACHE_SUFFIXES and not path.name.endswith("~")


def write_zip(root: Path, output: Path) -> int:
    """Write the zip; an older one is replaced, atomically, once the new one is complete.

    Args:
        root: The folder that holds the packages.
        output: The zip to write; its folder is made where missing.

    Returns:
        How many files the zip holds.

    Raises:
        FileNotFoundError: A package is not in `root`.
    """
    files = package_files(root)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.unfinished")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            for path in files:
                entry = zipfile.ZipInfo(path.as_posix(), _TIMESTAMP)
                entry.create_system = _UNIX
                entry.external_attr = _PERMISSIONS << 16
                archive.writestr(entry, (root / path).read_bytes())
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
    return len(files)


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; those of the process when None.

    Returns:
        The exit code: 0 done, 1 a package is missing.
    """
    parser = argparse.ArgumentParser(description="Pack the project for spark-submit --py-files.")
    parser.add_argument("--root", type=Path, default=Path(), help="folder that holds the packages")
    parser.add_argument("--output", type=Path, required=True, help="the zip to write")
    arguments = parser.parse_args(argv)
    try:
        count = write_zip(arguments.root, arguments.output)
    except FileNotFoundError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{arguments.output}: {count} files\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
