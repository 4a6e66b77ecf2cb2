"""Progress: a bar on a terminal, log lines elsewhere."""

import io
import logging
import threading
from collections.abc import Callable

import pytest
from rich.console import Console

from jobs.command import progress
from jobs.command.progress import show_count, watch


class Count:
    """Counts ten photos more whenever it is asked, up to forty, and says when it got there."""

    def __init__(self) -> None:
        self.photos = 0
        self.reached = threading.Event()

    def __call__(self) -> int:
        if self.photos == 40:
            self.reached.set()
        self.photos = min(40, self.photos + 10)
        return self.photos


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], io.StringIO]:
    """Redirects progress to a terminal, or to what is none, and lets it poll all the time."""
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(progress, "_LOG_EVERY_SECONDS", -1)

    def redirect(terminal: bool) -> io.StringIO:
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=terminal, width=120)
        monkeypatch.setattr(progress, "Console", lambda **_: console)
        return screen

    return redirect


def show(count: Count) -> None:
    with show_count("embedding photos", "photos", 50, count):
        assert count.reached.wait(60)


def test_photos_their_rate_and_the_time_left_are_logged(
    shown: Callable[[bool], io.StringIO], caplog: pytest.LogCaptureFixture
) -> None:
    screen = shown(False)
    with caplog.at_level(logging.INFO, "jobs"):
        show(Count())
    assert screen.getvalue() == ""
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "embedding photos: 10 of 50 photos"
    assert any(
        line.startswith("embedding photos: 40 of 50 photos, ")
        and line.endswith(" a second, 0:00:01 left")
        for line in lines
    ), lines
    assert lines[-1].startswith("embedding photos: 40 photos in ")


def test_on_a_terminal_there_is_a_bar(
    shown: Callable[[bool], io.StringIO], caplog: pytest.LogCaptureFixture
) -> None:
    screen = shown(True)
    with caplog.at_level(logging.INFO, "jobs"):
        show(Count())
    assert "40/50" in screen.getvalue()
    assert "photos" in screen.getvalue()
    assert [record.getMessage().split(" in ")[0] for record in caplog.records] == [
        "embedding photos: 40 photos"
    ]


def test_a_failure_ends_the_progress_and_is_raised(
    shown: Callable[[bool], io.StringIO], caplog: pytest.LogCaptureFixture
) -> None:
    shown(False)
    with (
        caplog.at_level(logging.INFO, "jobs"),
        pytest.raises(ZeroDivisionError),
        show_count("embedding photos", "photos", 50, lambda: 0),
    ):
        raise ZeroDivisionError
    assert "progress" not in [thread.name for thread in threading.enumerate()]
    assert " in " not in caplog.text


def test_a_watched_loop_says_what_it_does_and_may_end_early(
    shown: Callable[[bool], io.StringIO], caplog: pytest.LogCaptureFixture
) -> None:
    shown(False)
    with caplog.at_level(logging.INFO, "jobs"):
        for epoch in watch(range(500), "training the head", "epochs at most", 500):
            if epoch == 2:
                break
    assert [record.getMessage() for record in caplog.records] == [
        "training the head: 500 epochs at most",
        "training the head: 1 of 500 epochs at most",
        "training the head: 2 of 500 epochs at most",
    ]
