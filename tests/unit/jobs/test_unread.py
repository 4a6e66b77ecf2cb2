"""Jobs refuse photos that cannot be read, before the work or before they publish."""

import logging

import fsspec
import pytest

from jobs.command.photo_settings import PhotoSettings
from jobs.stages.unread import check_drivers, check_unread
from schemas.errors import GateRefusal, SettingsError
from schemas.rejects import RejectReason
from seer_model.photos.limits import SCHEMES


@pytest.fixture(autouse=True, scope="module")
def _nodriver() -> None:
    fsspec.register_implementation("nodriver", "no_such_package.Store", errtxt="Install it")


def check(schemes: dict[str, int]) -> None:
    allowed = [*schemes, *SCHEMES]
    settings = PhotoSettings.model_construct(photo_schemes=allowed, max_unread_share=0.2)
    check_drivers({"schemes": schemes, "rows": sum(schemes.values())}, settings)


def test_scheme_that_is_not_allowed_needs_no_driver() -> None:
    settings = PhotoSettings.model_construct(photo_schemes=["https"], max_unread_share=0.2)
    check_drivers({"schemes": {"nodriver": 1}, "rows": 1}, settings)


def test_missing_driver_of_most_photos_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"21 of 100 photos are at nodriver:.*Install it"):
        check({"nodriver": 21, "https": 79})


def test_missing_driver_of_few_photos_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check({"nodriver": 20, "https": 50, "memory": 30})
    assert [record.message.partition(" and ")[0] for record in caplog.records] == [
        "20 of 100 photos are at nodriver://"
    ]


@pytest.mark.parametrize(
    ("scheme", "extra"), [("s3", "s3"), ("s3a", "s3"), ("gs", "gcs"), ("abfss", "azure")]
)
def test_the_extra_that_has_the_driver_is_named(
    scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_installed(scheme: str) -> None:
        raise ImportError

    monkeypatch.setattr(fsspec, "get_filesystem_class", not_installed)
    with pytest.raises(SettingsError, match=rf"pip install 'seer-categories\[{extra}\]'"):
        check({scheme: 1})


def test_too_many_unread_for_the_same_reason_are_refused() -> None:
    check_unread({}, 0, 0.2)
    check_unread({"not_found": 20, "read_failed": 20}, 100, 0.2)
    check_unread({"not_found": 100}, 100, 1)
    with pytest.raises(GateRefusal, match=r"21 of 100 photos \(21%\) could not be read: read_f"):
        check_unread({"not_found": 20, "read_failed": 21}, 100, 0.2)
    with pytest.raises(GateRefusal):
        check_unread({"not_found": 1}, 100, 0)


def test_what_is_wrong_with_a_photo_itself_does_not_count() -> None:
    unread = {reason for reason in RejectReason if reason.unread}
    assert unread == {
        RejectReason.UNSUPPORTED_SCHEME,
        RejectReason.NOT_ALLOWED,
        RejectReason.NOT_FOUND,
        RejectReason.READ_FAILED,
        RejectReason.KEY_MISMATCH,
    }
    assert not any(reason.permanent for reason in unread)
