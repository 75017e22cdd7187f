"""Ctrl-C in a search: answered at once, obeyed after the step, and again at once."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from deepmlf.tune.driver.stop import Stop


@pytest.fixture
def of_ray() -> Iterator[list[int]]:
    """Ray's handler of SIGINT, which gives the one before it back; the signals that it got."""
    got: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def handler(number: int, frame: FrameType | None) -> None:
        got.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, handler)
    yield got
    signal.signal(signal.SIGINT, before)


def test_the_first_ctrl_c_is_answered_and_the_second_one_raises(of_ray: list[int]) -> None:
    answers: list[str] = []
    stop = Stop(None)
    stop.on_interrupt = lambda: answers.append("stopping")
    for step in range(2):
        stop.on_step_begin(step, [])
    signal.raise_signal(signal.SIGINT)
    assert (answers, of_ray) == (["stopping"], [signal.SIGINT])
    stop.on_step_begin(2, [])
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert answers == ["stopping"]


def test_the_end_of_the_time_budget_is_no_ctrl_c(of_ray: list[int]) -> None:
    answers: list[str] = []
    stop = Stop(-1.0)
    stop.on_interrupt = lambda: answers.append("stopping")
    stop.on_step_begin(0, [])
    stop.on_step_end(0, [])
    assert (answers, of_ray, stop.out_of_time) == ([], [signal.SIGINT], True)
