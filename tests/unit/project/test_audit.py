"""What `make audit` takes for a licence that a person must look at."""

import pytest

from scripts.audit import needs_a_look


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("timm", "Apache-2.0"),
        ("numpy", "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0"),
        ("certifi", "Mozilla Public License 2.0 (MPL 2.0)"),
        ("nvidia-cublas", "LicenseRef-NVIDIA-Proprietary"),
        ("huey", "UNKNOWN"),
    ],
)
def test_may_stay(name: str, licence: str) -> None:
    assert not needs_a_look(name, licence)


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("new", "UNKNOWN"),
        ("new", ""),
        ("new", "Other/Proprietary License"),
        ("new", "GNU Affero General Public License v3"),
        ("new", "LGPL-3.0-only"),
        ("new", "MIT OR GPL-2.0-only"),
        ("new", "CC-BY-NC-4.0 (non-commercial)"),
        ("another", "LicenseRef-NVIDIA-Proprietary"),
    ],
)
def test_needs_a_look(name: str, licence: str) -> None:
    assert needs_a_look(name, licence)
