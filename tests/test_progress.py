import io

import pytest

from umair_jax.training import progress as module
from umair_jax.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when told to."""

    class Clock:
        now = 100.0

        def tick(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now)
    return clock


def run(progress, clock, steps, seconds, wait=0.0):
    for step in steps:
        clock.tick(seconds)
        progress.waited(wait)
        progress.stepped(step)


def test_rate_wait_and_time_left(clock):
    progress = Progress(0, 100, batch_size=64, out=io.StringIO())
    # The first step is compilation.
    run(progress, clock, [1], 30.0, wait=20.0)
    assert progress.line() == "step 1/100"
    assert progress.examples_per_second == progress.data_wait_share == 0
    run(progress, clock, range(2, 11), 0.5, wait=0.1)
    assert progress.seconds == pytest.approx(4.5)
    assert progress.examples_per_second == pytest.approx(128)
    assert progress.data_wait_share == pytest.approx(0.2)
    assert progress.line({"loss": 0.5}) == (
        "step 10/100  128 examples/s  data wait 20.0%  ETA 0:45  loss 0.5000"
    )


def test_evaluations_and_checkpoints_do_not_count(clock):
    progress = Progress(0, 100, batch_size=10, out=io.StringIO())
    run(progress, clock, [1, 2, 3], 1.0)
    progress.pause()
    clock.tick(500)
    progress.waited(7.0)
    progress.go_on()
    run(progress, clock, [4, 5], 1.0)
    assert progress.seconds == pytest.approx(4)
    assert progress.data_wait_share == 0
    assert progress.examples_per_second == pytest.approx(10)
    # Paused twice is paused once; before the first step there is nothing to go on with.
    progress.pause()
    progress.pause()
    assert progress.seconds == pytest.approx(4)
    fresh = Progress(0, 100, batch_size=10, out=io.StringIO())
    fresh.pause()
    fresh.go_on()
    run(fresh, clock, [1], 99.0)
    assert fresh.seconds == 0


def test_the_time_of_earlier_parts_counts_on(clock):
    first = Progress(0, 10, batch_size=8, out=io.StringIO())
    run(first, clock, range(1, 6), 1.0, wait=0.5)
    first.pause()
    second = Progress(5, 10, batch_size=8, out=io.StringIO(), spent=first.spent)
    run(second, clock, [6], 60.0)
    assert second.seconds == first.seconds == pytest.approx(4)
    run(second, clock, [7, 8], 2.0)
    assert second.spent == {"steps": 6, "seconds": pytest.approx(8), "waited": pytest.approx(2)}
    assert second.examples_per_second == pytest.approx(6 * 8 / 8)
    assert "ETA 0:03" in second.line()


def test_a_log_file_gets_a_line_a_report(clock):
    out = io.StringIO()
    progress = Progress(0, 4000, batch_size=8, out=out)
    run(progress, clock, range(1, 2001), 0.25)
    assert out.getvalue() == ""
    progress.report({"loss": 0.25, "auc": 0.5})
    progress.say("step 2,000  valid: auc 0.7")
    assert out.getvalue().splitlines() == [
        "step 2,000/4,000  32 examples/s  data wait 0.0%  ETA 8:20  loss 0.2500  auc 0.5000",
        "step 2,000  valid: auc 0.7",
    ]


def test_a_terminal_gets_one_line_rewritten(clock):
    out = Terminal()
    progress = Progress(0, 4, batch_size=8, out=out)
    run(progress, clock, [1, 2, 3], 0.5)
    drawn = out.getvalue()
    assert "\n" not in drawn
    assert drawn.count("\r\x1b[2K") == 2
    run(progress, clock, [4], 0.01)
    assert out.getvalue() == drawn, "drawn at most five times a second"
    progress.say("saved")
    assert out.getvalue().endswith("\r\x1b[2Ksaved\n")


def test_nothing_is_shown_if_not_asked(clock):
    out = Terminal()
    progress = Progress(0, 4, batch_size=8, show=False, out=out)
    run(progress, clock, [1, 2, 3], 0.5)
    progress.report({"loss": 1.0})
    progress.say("saved")
    assert out.getvalue() == ""
    assert progress.examples_per_second == pytest.approx(16)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599.0, "59:59"), (3600.0, "1:00:00")],
)
def test_clock(seconds, text):
    assert module._clock(seconds) == text
