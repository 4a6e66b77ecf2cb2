"""The packed environment on a machine that has nothing else of ours."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seer_model.backbones.backbone import load_backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.runtimes.pytorch import TorchRuntime
from seer_model.photos.source import PhotoSource
from tests.support.paths import ROOT

pytestmark = [pytest.mark.lake, pytest.mark.slow]

EMBED = """
import json, sys
from pathlib import Path

import mlflow, torch

from seer_model.backbones.backbone import load_backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.runtimes.pytorch import TorchRuntime
from seer_model.photos.source import PhotoSource

photo, folder = (Path(argument) for argument in sys.argv[1:])
backbone = load_backbone(folder)
embedders = [PhotoEmbedder.open(backbone), PhotoEmbedder(TorchRuntime(backbone, batch_size=8))]
vectors = [next(embedder.embed([PhotoSource(None, photo.read_bytes())])).vector
           for embedder in embedders]
print(json.dumps({
    "vectors": [vector.tobytes().hex() for vector in vectors],
    "files": sorted({line.split()[-1] for line in open("/proc/self/maps") if "/" in line}),
    "modules": sorted(m.__file__ for m in sys.modules.values() if getattr(m, "__file__", None)),
    "cuda": torch.cuda.is_available(),
}))
"""


def test_unpacked_python_embeds_a_photo_as_the_checkout_does(
    environment: Path,
    package: Path,
    bundle_folder: Path,
    draw_photo: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(draw_photo("warm/red"))
    # A GPU that the machine has is none of its.
    variables = {"PYTHONPATH": str(package), "CUDA_VISIBLE_DEVICES": "0"}
    command = [environment / "bin" / "python", "-W", "error", "-c", EMBED, photo]
    done = subprocess.run(
        [*command, bundle_folder / "backbone"],
        capture_output=True,
        text=True,
        check=False,
        env=variables,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    backbone = load_backbone(bundle_folder / "backbone")
    of_checkout = (
        PhotoEmbedder.open(backbone),
        PhotoEmbedder(TorchRuntime(backbone, batch_size=8)),
    )
    for vector, embedder in zip(found["vectors"], of_checkout, strict=True):
        (embedded,) = embedder.embed([PhotoSource(None, photo.read_bytes())])
        assert embedded.vector is not None
        assert np.array_equal(np.frombuffer(bytes.fromhex(vector), "<f2"), embedded.vector)
    assert found["cuda"] is False
    # Neither a library nor a module is the checkout's, or its interpreter's.
    for path in [*found["files"], *found["modules"]]:
        assert not path.startswith((str(ROOT), sys.prefix, sys.base_prefix)), path


def test_archive_has_no_spark_and_no_cuda_and_is_small(
    environment: Path, environment_archive: Path
) -> None:
    assert environment_archive.stat().st_size < 700e6
    (packages,) = environment.glob("lib/python3.*/site-packages")
    names = {path.name.partition("-")[0] for path in packages.glob("*.dist-info")}
    assert {"torch", "openvino", "mlflow", "pyarrow"} <= names
    assert not names & {"pyspark", "py4j", "triton", "pytest", "mypy", "ruff"}
    assert sum(path.stat().st_size for path in packages.glob("nvidia/**/*.so*")) < 20e6
