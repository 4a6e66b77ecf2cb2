"""Pack a Python with all that the jobs import into one archive for ``spark-submit --archives``.

    .venv/bin/python scripts/package_environment.py --output dist/seer-environment.tar.gz

It is the environment that runs this script, so that what was tested is what is sent, without what
the machines of a cluster need not be sent: Spark, which they have, the packages for development,
tests, C headers, and CUDA. PyTorch's wheel for Linux is made for CUDA: its libraries name NVIDIA's,
which are larger than all else together. Each of those is replaced by one with the same functions
and nothing in them, and PyTorch's own kernels for GPUs by zeros.

Needs Linux, a C compiler (``cc``), and its ``nm`` and ``readelf``.
"""

import argparse
import compileall
import gzip
import importlib.metadata
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
_LEFT_OUT = re.compile(r"pyspark|py4j|triton|nvidia-.*|cuda-.*")
_FOLDERS_LEFT_OUT = {"include", "tests", "__pycache__"}
_STDLIB_LEFT_OUT = (
    *("__pycache__", "config-*", "ensurepip", "idlelib", "lib2to3", "site-packages"),
    *("test", "tests", "tkinter", "turtledemo"),
)
# What a GPU's absence is asked of. They are small, and are called on any machine.
_KEPT = re.compile(r"lib(cudart|cudnn|cufile|cupti)\.so.*")
# On a machine with a GPU torch would call what is empty here.
_NO_GPU = "import os; os.environ['CUDA_VISIBLE_DEVICES'] = ''\n"
_CHECK = "import mlflow, openvino, pandas, torch, torchvision; assert not torch.cuda.is_available()"


# --- what goes in --------------------------------------------------------------------------------


def needed_packages(pyproject: Path) -> dict[str, importlib.metadata.Distribution]:
    """The installed packages that the project depends on, by name, but for those left out."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    waiting = _that_apply(project["dependencies"], {""})
    extras: dict[str, set[str]] = defaultdict(set)
    found: dict[str, importlib.metadata.Distribution] = {}
    while waiting:
        needed = waiting.pop()
        name, wanted = canonicalize_name(needed.name), {"", *needed.extras}
        if not _LEFT_OUT.fullmatch(name) and not wanted <= extras[name]:
            extras[name] |= wanted
            found[name] = importlib.metadata.distribution(name)
            waiting += _that_apply(found[name].requires or [], wanted)
    return found


def _that_apply(lines: Iterable[str], extras: set[str]) -> list[Requirement]:
    """The requirements that a platform and a package's extras make."""
    requirements = map(Requirement, lines)
    return [
        each
        for each in requirements
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras)
    ]


def copy_packages(target: Path) -> None:
    """Copy the files of the needed packages to a `site-packages`."""
    for package in needed_packages(ROOT / "pyproject.toml").values():
        for file in package.files or []:
            outside = ".." in file.parts or _FOLDERS_LEFT_OUT.intersection(file.parts)
            if not outside and file.suffix != ".pyc":
                _copy(Path(str(package.locate_file(file))), target / file)


def copy_interpreter(target: Path) -> Path:
    """Copy the interpreter and its standard library; returns where packages go.

    Raises:
        SystemExit: The interpreter would look for its library where it is installed here.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    stdlib = Path(sysconfig.get_path("stdlib"))
    skip = shutil.ignore_patterns(*_STDLIB_LEFT_OUT)
    shutil.copytree(stdlib, target / "lib" / version, ignore=skip)
    python = target / "bin" / "python"
    _copy(Path(sys.base_prefix, "bin", version), python)
    for name in ("python3", version):
        python.with_name(name).symlink_to("python")
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        folder, library = sysconfig.get_config_vars("LIBDIR", "INSTSONAME")
        _copy(Path(folder, library), target / "lib" / library)
        program, beside = python.read_bytes(), b"$ORIGIN/../lib"
        here = folder.encode()
        if beside not in program and here + b"\0" not in program:
            sys.exit(f"package_environment: {python.name} does not say where {library} lies")
        python.write_bytes(program.replace(here + b"\0", beside.ljust(len(here) + 1, b"\0")))
    packages = target / "lib" / version / "site-packages"
    packages.mkdir()
    return packages


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


# --- without CUDA --------------------------------------------------------------------------------


def leave_out_cuda(packages: Path) -> None:
    """Make torch load without NVIDIA's libraries, and find no GPU."""
    installed = Path(str(importlib.metadata.distribution("torch").locate_file("")))
    libraries = {path.name: path for path in installed.glob("nvidia/*/lib/*.so*")}
    for library in sorted((packages / "torch" / "lib").glob("*.so")):
        blank_kernels(library)
        for name in _needs(library) & libraries.keys():
            target = packages / libraries[name].relative_to(installed)
            if _KEPT.fullmatch(name):
                _copy(libraries[name], target)
            elif not target.exists():
                write_stub(libraries[name], target)
    (packages / "no_gpu.pth").write_text(_NO_GPU, encoding="utf-8")


def blank_kernels(library: Path) -> None:
    """Overwrite the code for GPUs in a library with zeros, which take no room in an archive."""
    section = re.search(r" \.nv_fatbin +\w+ +\w+ +(\w+) +(\w+)", _run("readelf", "-SW", library))
    if section:
        start, size = (int(number, 16) for number in section.groups())
        with library.open("r+b") as file:
            file.seek(start)
            file.write(bytes(size))


def write_stub(library: Path, target: Path) -> None:
    """Make a library with the names and versions that another exports, whose functions trap."""
    versions: dict[str, list[str]] = defaultdict(list)
    source = []
    for line in _run("nm", "-D", "--defined-only", "--with-symbol-versions", library).splitlines():
        _, kind, symbol = line.split()
        name, _, version = symbol.partition("@")
        # Weak C++ functions are the standard library's.
        is_function = kind == "T" or (kind == "W" and not name.startswith("_Z"))
        if name in {"_init", "_fini"} or not (is_function or kind in "BDR"):
            continue
        versions[version.lstrip("@")].append(name)
        source.append(
            f"void {name}(void) {{ __builtin_trap(); }}" if is_function else f"char {name}[64];"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        code, script = Path(work, "stub.c"), Path(work, "stub.map")
        code.write_text("\n".join(source), encoding="utf-8")
        script.write_text(
            "\n".join(f"{v} {{ global: {'; '.join(n)}; }};" for v, n in versions.items()),
            encoding="utf-8",
        )
        options = ["-w", "-fPIC", "-shared", "-nostdlib", f"-Wl,-soname,{target.name}"]
        options += ["-Wl,--build-id=none"]
        options += [f"-Wl,--version-script={script}"] if set(versions) != {""} else []
        _run("cc", *options, "-o", target, code)


def _needs(library: Path) -> set[str]:
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", _run("readelf", "-d", library)))


def _run(*command: str | Path) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        sys.exit(f"package_environment: {command[0]} is missing: install a C compiler")
    return done.stdout


# --- the archive ---------------------------------------------------------------------------------


def build(target: Path) -> None:
    """Build the environment in an empty folder, and check that it runs."""
    packages = copy_interpreter(target)
    copy_packages(packages)
    leave_out_cuda(packages)
    # Workers would compile torch in every container, which takes longer than most tasks.
    compileall.compile_dir(
        target / "lib",
        maxlevels=20,
        quiet=2,
        workers=os.cpu_count() or 1,
        stripdir=str(target),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    subprocess.run([target / "bin" / "python", "-c", _CHECK], env={}, cwd=target, check=True)


def write_archive(folder: Path, output: Path) -> None:
    """Pack a folder; an older archive is replaced once the new one is complete."""
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.unfinished")
    try:
        with (
            unfinished.open("wb") as file,
            gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for path in sorted(folder.rglob("*")):
                archive.add(path, path.relative_to(folder), recursive=False, filter=_anonymous)
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Pack a Python for spark-submit --archives.")
    parser.add_argument("--output", type=Path, required=True, help="the .tar.gz to write")
    output = parser.parse_args().output
    if sys.platform != "linux":
        print(f"{output}: left out, since only a Linux like the cluster's can make it")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as work:
        build(Path(work))
        write_archive(Path(work), output)


if __name__ == "__main__":
    main()
