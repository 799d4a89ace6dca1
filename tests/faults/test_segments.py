"""The parts under large buffers, by themselves: who may write to a segment, and how it travels."""

import gc
import os
from collections.abc import Iterator

import pytest

from poolkit.backends.process.board import SLOTS
from poolkit.backends.process.lending import Store
from poolkit.backends.process.mapping import FREE, GONE, LENT, Segment
from poolkit.backends.process.segments import Receiver, Sender, make_pair

SIZE = 1 << 16


class Line:
    """A sender and a receiver, here both in this process."""

    def __init__(self, most_kept: int = 1 << 20) -> None:
        self.flags = memoryview(bytearray(SLOTS))
        self.store = Store(most_kept)
        self._filled: list[Segment] = []
        self._ends = make_pair()
        self._ends[0].setblocking(False)
        self.sender = Sender(self._ends[0], self.store, self.flags)
        self.receiver = Receiver(self._ends[1], self.flags)

    def fill(self, number: int = 1) -> Segment:
        self._filled.append(self.store.fill([(0, bytes([number]) * SIZE)], SIZE))
        return self._filled[-1]

    def close(self) -> None:
        self.store.close()
        self.receiver.close()
        self._ends[0].close()
        for segment in self._filled:
            segment.close()


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


def test_a_segment_is_filled_again_once_no_view_is_left(line: Line) -> None:
    segment = line.fill()
    view = line.receiver.take(line.sender.send(segment, SIZE)).view()
    line.store.keep(segment)
    part = view[5:10]
    del view
    assert line.flags[0] == LENT
    assert line.fill(2) is not segment
    assert bytes(part) == b"\1" * 5
    del part
    assert line.flags[0] == FREE
    assert line.fill(3) is segment


def test_a_segment_that_is_lent_twice_waits_for_both(line: Line) -> None:
    segment = line.fill()
    views = [line.receiver.take(line.sender.send(segment, SIZE)).view() for _ in range(2)]
    line.store.keep(segment)
    views.pop()
    assert line.fill() is not segment
    views.pop()
    assert line.fill() is segment


def test_what_was_given_back_by_a_fork_is_closed(line: Line) -> None:
    segment = line.fill()
    view = line.receiver.take(line.sender.send(segment, SIZE)).view()
    line.store.keep(segment)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    del view
    assert line.flags[0] == GONE
    assert line.fill() is not segment
    assert segment.closed


def test_a_slot_is_lent_again_only_when_its_receiver_was_heard(line: Line) -> None:
    segment = line.fill()
    view = line.receiver.take(line.sender.send(segment, SIZE)).view()
    line.store.keep(segment)
    line.store.rest()
    assert segment.closed
    other = line.fill(2)
    _, slot, _ = announced = line.sender.send(other, SIZE)
    assert slot == 1
    assert set(bytes(line.receiver.take(announced).view())) == {2}
    assert set(bytes(view)) == {1}
    del view
    assert line.sender.send(other, SIZE)[1] == 0


def test_without_a_slot_a_segment_is_never_filled_again(line: Line) -> None:
    lent = [line.fill() for _ in range(SLOTS + 1)]
    views = [line.receiver.take(line.sender.send(each, SIZE)).view() for each in lent]
    last = lent[-1]
    views.clear()
    line.store.keep(last)
    assert line.fill() is not last
    assert last.closed


def test_one_that_was_sent_twice_is_passed_over(line: Line) -> None:
    lost, found = line.fill(1), line.fill(2)
    line.sender.send(lost, SIZE)
    assert set(bytes(line.receiver.take(line.sender.send(found, SIZE)).view())) == {2}
    line.store.keep(lost)
    assert line.fill() is lost


def test_a_full_socket_refuses_and_leaves_the_segment_free(line: Line) -> None:
    segment = line.fill()
    sent = 0
    with pytest.raises(BlockingIOError):
        for sent in range(10_000):  # noqa: B007
            line.sender.send(segment, SIZE)
    assert sent > 64, "fewer than may be sent ahead"


def test_one_that_is_dropped_unread_is_given_back(line: Line) -> None:
    segment = line.fill()
    landed = line.receiver.take(line.sender.send(segment, SIZE))
    line.store.keep(segment)
    assert line.fill() is not segment
    del landed
    assert line.fill() is segment


def test_a_view_in_a_cycle_is_not_taken_for_gone(line: Line) -> None:
    segment = line.fill()
    seen: list[int] = []

    class Node:
        def __init__(self, view: memoryview) -> None:
            self.view = view
            self.me = self

        def __del__(self) -> None:
            seen.append(line.flags[0])
            seen.extend(set(bytes(self.view)))

    Node(line.receiver.take(line.sender.send(segment, SIZE)).view())
    gc.collect()
    assert seen[0] in (LENT, GONE)
    assert seen[1:] == [1]


def test_the_store_keeps_no_more_than_it_may() -> None:
    line = Line(most_kept=3 * SIZE)
    segments = [line.fill() for _ in range(5)]
    for segment in segments:
        line.store.keep(segment)
    assert [segment.closed for segment in segments] == [True, True, False, False, False]
    line.store.close()
    assert all(segment.closed for segment in segments)
    line.close()


def test_what_is_said_last_by_the_dead_is_heard() -> None:
    """The kernel tells of a reset connection before it gives out what came before."""
    line = Line()
    ours, theirs = make_pair()
    sender = Sender(theirs, line.store, line.flags)
    receiver = Receiver(ours, line.flags)
    segment = line.fill(7)
    ours.send(b"never read")
    announced = sender.send(segment, SIZE)
    theirs.close()
    assert set(bytes(receiver.take(announced).view())) == {7}
    receiver.close()
    line.close()
