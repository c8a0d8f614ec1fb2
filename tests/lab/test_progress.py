"""The progress of long work: places among all stages, an estimate, bars or lines."""

import io
import types

import pytest
from rich.console import Console

from lion_jax import lab
from lion_jax.lab import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return clock


def told(clock, stages, events):
    """The events that a listener hears: seconds, and what is told at that time."""
    heard = []
    tell = progress.teller(heard.append, stages)
    for clock.now, *event in events:
        tell(*event)
    return heard


def test_stages_have_their_places(clock):
    heard = told(clock, ["lion", "sgd"], [(0, "lion", 0, 10), (1, "sgd", 5, 10)])
    assert [(p.stage, p.place, p.stages, p.done, p.total) for p in heard] == [
        ("lion", 1, 2, 0, 10),
        ("sgd", 2, 2, 5, 10),
    ]


def test_what_remains_is_estimated_from_what_is_done(clock):
    heard = told(
        clock,
        ["lion", "sgd"],
        [
            (0, "lion", 0, 100),
            (1, "lion", 1, 100),
            (10, "lion", 50, 100),
            (20, "lion", 100, 100),
            (20, "sgd", 0, 100),
            (30, "sgd", 50, 100),
            (40, "sgd", 100, 100),
        ],
    )
    assert [p.remaining for p in heard] == [None, None, 30, 20, 20, 10, 0]


def test_a_stage_that_nobody_announced_comes_last(clock):
    heard = told(clock, ["lion"], [(0, "lion", 1, 1), (0, "sgd", 0, 1)])
    assert (heard[1].place, heard[1].stages) == (2, 2)


def test_lines_tell_the_start_and_the_end_of_each_stage(clock, capsys):
    events = [
        (20 * stage + done, name, done, 20)
        for stage, name in enumerate(["lion", "sgd"])
        for done in range(21)
    ]
    for heard in told(clock, ["lion", "sgd"], events):
        progress.in_lines(heard)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "lion (1 of 2): started",
        "lion (1 of 2): 20 of 20, about 20 s left",
        "sgd (2 of 2): started, about 20 s left",
        "sgd (2 of 2): 20 of 20",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59.6, "60 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3600, "60 min"),
        (5400, "1.5 h"),
        (36000, "10.0 h"),
    ],
)
def test_a_time_is_told_in_the_unit_that_suits_it(seconds, words):
    assert progress.duration(seconds) == words


def test_a_terminal_shows_a_bar_for_each_stage(clock, monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, force_jupyter=False, width=90)
    monkeypatch.setattr(progress, "Console", lambda **options: terminal)
    with progress.shown() as on_progress:
        for heard in told(
            clock, ["lion", "sgd"], [(0, "lion", 0, 10), (10, "lion", 10, 10), (15, "sgd", 5, 10)]
        ):
            on_progress(heard)
    text = screen.getvalue()
    assert "lion (1 of 2)" in text
    assert "sgd (2 of 2)" in text
    assert "5 of 10, about 5 s left" in text


@pytest.mark.parametrize("of", [progress.shown, progress.on_command_line])
def test_elsewhere_than_on_a_terminal_only_the_command_line_tells(of, clock, capsys):
    with of() as on_progress:
        for heard in told(clock, ["lion"], [(0, "lion", 0, 10)]):
            on_progress(heard)
    lines = ["lion (1 of 1): started"] if of is progress.on_command_line else []
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.slow
def test_a_listener_hears_all_of_a_comparison_and_nothing_is_shown(line, capsys):
    heard = []
    lab.compare(line, "sgd", learning_rates=1, steps=60, seeds=1, on_progress=heard.append)
    assert [p.done for p in heard] == list(range(61))
    assert all(isinstance(p, lab.Progress) for p in heard)
    assert heard[0].remaining is None
    assert heard[-2].remaining > 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
