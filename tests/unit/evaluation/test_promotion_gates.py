"""What the gates demand, one by one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import SettingsError
from seer_model.evaluation.gates import Gates, check_gates, licence_gate, read_gates
from tests.support.evaluations import difference, group
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def gates() -> Gates:
    return read_gates(None)


def evaluation(**changes: Any) -> dict[str, Any]:
    """One that passes every gate of the package's settings, with some parts changed."""
    figures = {"listings": 1000.0, "precision": 0.95, "calibration_error": 0.03, "top1": 0.8}
    figures["coverage"] = 0.5
    return {
        "challenger": {
            "model": "m/2",
            "target_precision": 0.95,
            "figures": figures | changes.pop("figures", {}),
        },
        "champion": {"model": "m/1"},
        "evaluated_at": datetime.now(UTC).isoformat(),
        "splits": ["test"],
        "differences": {"top1": difference(0.05), "coverage": difference(0.0)},
        "slices": [group("region=eu", 500, 0.02)],
        "categories": [group("boots", 100, 0.02)],
        "missing_categories": [],
        **changes,
    }


def failed(gates: Gates, found: dict[str, Any] | None) -> list[str]:
    return [g.gate for g in check_gates(gates, found, "m/2", "m/1") if not g.passed]


def test_a_better_version_passes(gates: Gates) -> None:
    assert failed(gates, evaluation()) == []


@pytest.mark.parametrize(
    ("gate", "changes"),
    [
        ("evaluation", {"champion": None}),
        ("evaluation", {"champion": {"model": "m/0"}}),
        ("evaluation", {"challenger": {"model": "m/3"}}),
        ("splits", {"splits": ["train"]}),
        ("splits", {"splits": ["test", "val"]}),
        ("listings", {"figures": {"listings": 199.0}}),
        ("age", {"evaluated_at": (datetime.now(UTC) - timedelta(days=31)).isoformat()}),
        # Better, but not beyond noise; and worse.
        ("better", {"differences": {"top1": difference(0.05, 0.06), "coverage": difference(0)}}),
        ("better", {"differences": {"top1": difference(-0.05), "coverage": difference(0)}}),
        ("better", {"differences": {"coverage": difference(0)}}),
        ("coverage", {"differences": {"top1": difference(0.05), "coverage": difference(-0.021)}}),
        ("precision", {"figures": {"precision": 0.929}}),
        ("calibration", {"figures": {"calibration_error": 0.11}}),
        ("slices", {"slices": [group("region=eu", 50, -0.06)]}),
        ("categories", {"categories": [group("hats", 60, 0.1), group("boots", 50, -0.11)]}),
        ("taxonomy", {"missing_categories": ["boots"]}),
    ],
)
def test_each_gate_refuses(gates: Gates, gate: str, changes: dict[str, Any]) -> None:
    assert failed(gates, evaluation(**changes)) == [gate]


@pytest.mark.parametrize(
    "changes",
    [
        # Too few listings to judge; a fall within noise; a small fall; nothing assigned.
        {"slices": [group("region=eu", 49, -0.5)]},
        {"slices": [group("region=eu", 500, -0.06, margin=0.07)]},
        {"categories": [group("boots", 500, -0.05)]},
        {"slices": [], "categories": []},
    ],
)
def test_what_does_not_refuse(gates: Gates, changes: dict[str, Any]) -> None:
    assert failed(gates, evaluation(**changes)) == []


@pytest.fixture
def gates_on_exact_coverage(tmp_path: Path) -> Gates:
    """Those that the package's file has as a comment."""
    return read_gates(uncommented(tmp_path, "[exact_coverage]\nmin_share = 0.3\nmax_fall = 0.02\n"))


def uncommented(folder: Path, settings: str) -> Path:
    """Write the package's file with the settings that it has as a comment."""
    text = (ROOT / "seer_model/evaluation/gates.toml").read_text(encoding="utf-8")
    commented = "".join(f"# {line}\n" for line in settings.splitlines())
    assert commented in text
    path = folder / "gates.toml"
    path.write_text(text.replace(commented, settings), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("share", "fall", "refused"),
    [
        (0.4, 0.0, []),
        (0.4, -0.03, ["exact_coverage"]),
        (0.2, 0.1, ["exact_coverage"]),
        # A record written before the figure was measured.
        (None, None, ["exact_coverage"]),
    ],
)
def test_exact_coverage_is_asked_where_the_settings_do(
    gates: Gates,
    gates_on_exact_coverage: Gates,
    share: float | None,
    fall: float | None,
    refused: list[str],
) -> None:
    found = evaluation()
    if share is not None and fall is not None:
        found["challenger"]["figures"]["exact_coverage"] = share
        found["differences"]["exact_coverage"] = difference(fall)
    assert failed(gates_on_exact_coverage, found) == refused
    assert failed(gates, found) == []


@pytest.fixture
def gates_on_worst_groups(tmp_path: Path) -> Gates:
    """Those that the package's file has as a comment."""
    return read_gates(
        uncommented(
            tmp_path, '[worst_groups]\nslices = ["region"]\nmin_top1 = 0.5\nmax_gap = 0.2\n'
        )
    )


def worst(name: str, top1: float, gap: float, margin: float = 0.05) -> dict[str, Any]:
    interval = (top1 - margin, top1 + margin)
    gap_found = difference(gap, margin)
    return {"slice": name, "worst": "in", "top1": top1, "top1_interval": interval, "gap": gap_found}


@pytest.mark.parametrize(
    ("found", "measured"),
    [
        ([worst("region", 0.6, 0.1), worst("colour", 0.1, 0.8)], None),
        # Beyond the limits, but not beyond noise.
        ([worst("region", 0.46, 0.24)], None),
        ([worst("region", 0.44, 0.2)], "region=in 0.440"),
        ([worst("region", 0.6, 0.26)], "gap of region +0.260 (+0.210 to +0.310)"),
        ([worst("colour", 0.9, 0.0)], "region not measured"),
    ],
)
def test_worst_groups_are_asked_where_the_settings_do(
    gates: Gates, gates_on_worst_groups: Gates, found: list[dict[str, Any]], measured: str | None
) -> None:
    changed = evaluation()
    changed["challenger"]["worst_groups"] = found
    checked = check_gates(gates_on_worst_groups, changed, "m/2", "m/1")
    [gate] = [gate for gate in checked if gate.gate == "worst_groups"]
    assert gate.passed is (measured is None)
    assert gate.measured == (measured or "none of 1 slices beyond noise")
    assert failed(gates, changed) == []


def test_nothing_assigned_breaks_no_promise_of_precision(gates: Gates) -> None:
    found = evaluation()
    del found["challenger"]["figures"]["precision"]
    assert failed(gates, found) == []


def test_without_the_right_evaluation_nothing_else_is_asked(gates: Gates) -> None:
    [gate] = check_gates(gates, None, "m/2", "m/1")
    assert (gate.gate, gate.passed) == ("evaluation", False)
    assert "jobs.evaluate_challenger" in gate.measured


def first(**changes: Any) -> dict[str, Any]:
    """The evaluation of a first version, which has nothing to be compared with."""
    alone = {"champion": None, "differences": {}, "slices": [], "categories": []}
    return evaluation(**alone | changes)


@pytest.mark.parametrize(("share", "refused"), [(0.4, []), (0.2, ["exact_coverage"])])
def test_of_a_first_version_exact_coverage_itself_is_asked(
    gates_on_exact_coverage: Gates, share: float, refused: list[str]
) -> None:
    found = first()
    found["challenger"]["figures"]["exact_coverage"] = share
    checked = check_gates(gates_on_exact_coverage, found, "m/2", None)
    assert [gate.gate for gate in checked if not gate.passed] == refused


def test_a_first_version_needs_no_champion(gates: Gates) -> None:
    found = check_gates(gates, first(), "m/2", None)
    assert [gate.gate for gate in found if gate.passed] == [
        *("evaluation", "splits", "listings", "age", "coverage", "precision", "calibration")
    ]
    # It may have been compared with another model.
    assert all(g.passed for g in check_gates(gates, evaluation(), "m/2", None))


@pytest.mark.parametrize(
    ("gate", "changes"),
    [
        ("evaluation", {"challenger": {"model": "m/3"}}),
        ("splits", {"splits": ["train"]}),
        ("coverage", {"figures": {"coverage": 0.0}}),
        ("precision", {"figures": {"precision": 0.929}}),
        ("calibration", {"figures": {"calibration_error": 0.11}}),
    ],
)
def test_each_gate_refuses_a_first_version(
    gates: Gates, gate: str, changes: dict[str, Any]
) -> None:
    found = check_gates(gates, first(**changes), "m/2", None)
    assert [g.gate for g in found if not g.passed] == [gate]


def test_the_worst_groups_are_named(gates: Gates) -> None:
    slices = [group(f"region={i}", 60, -0.06 - i / 100) for i in range(5)]
    found = check_gates(gates, evaluation(slices=slices), "m/2", "m/1")
    [measured] = [g.measured for g in found if g.gate == "slices"]
    assert measured == "region=4 -0.100; region=3 -0.090; region=2 -0.080 and 2 more"


@pytest.mark.parametrize(
    ("licence", "acknowledged", "passed"),
    [
        ("mit", False, True),
        ("proprietary", False, True),
        ("seer-license", False, False),
        ("seer-license", True, True),
        ("unknown", False, False),
    ],
)
def test_licences(licence: str, acknowledged: bool, passed: bool) -> None:
    assert licence_gate(licence, acknowledged=acknowledged).passed is passed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("min_listings = 200", "min_listing = 200"), "data.min_listings: Field required"),
        (("max_error = 0.1", 'max_error = "much"'), "calibration.max_error"),
        (("max_fall = 0.02", "max_fall = -1"), "coverage.max_fall"),
        (("[taxonomy]", "[taxonomies]"), "taxonomies"),
        (("[data]", "[data"), "at line 6"),
    ],
)
def test_a_settings_file_with_a_mistake(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = (ROOT / "seer_model/evaluation/gates.toml").read_text(encoding="utf-8")
    path = tmp_path / "gates.toml"
    path.write_text(text.replace(*change, 1), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"gates\.toml") as error:
        read_gates(path)
    assert message in str(error.value)


def test_no_such_settings_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_gates(tmp_path / "none.toml")
