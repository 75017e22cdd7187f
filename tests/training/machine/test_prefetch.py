"""Batches made one ahead: the same ones, in order, and no thread that outlives its use."""

import threading
from collections.abc import Iterator

import pytest

from deepmlf.training.machine.prefetch import one_ahead


def test_the_next_item_is_made_while_the_current_one_is_in_use() -> None:
    made = [threading.Event() for _ in range(4)]

    def make() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    seen = []
    for number in one_ahead(make()):
        seen.append(number)
        assert all(event.wait(5) for event in made[: number + 2])
        assert not any(event.is_set() for event in made[number + 2 :])
    assert seen == [0, 1, 2, 3]


def test_an_error_reaches_the_consumer_after_the_items_before_it() -> None:
    def make() -> Iterator[int]:
        yield 0
        raise OSError("disk gone")

    items = one_ahead(make())
    assert next(items) == 0
    with pytest.raises(OSError, match="disk gone"):
        next(items)


def test_a_consumer_that_stops_leaves_no_thread() -> None:
    before = threading.active_count()
    items = one_ahead(iter(range(5)))
    next(items)
    assert threading.active_count() == before + 1
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
