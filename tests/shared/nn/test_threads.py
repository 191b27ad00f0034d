"""A thread's own number of threads stays its own."""

import queue
import threading
from collections.abc import Callable

import torch
from stretto_shared.nn.threads import use_threads


def _in_a_thread(works: "queue.Queue[Callable[[], object] | None]", made: "queue.Queue[object]") -> None:
    while (work := works.get()) is not None:
        made.put(work())


def test_another_thread_that_asks_later_changes_nothing() -> None:
    before = torch.get_num_threads()
    works: queue.Queue[Callable[[], object] | None] = queue.Queue()
    made: queue.Queue[object] = queue.Queue()
    thread = threading.Thread(target=_in_a_thread, args=(works, made))
    thread.start()
    try:
        works.put(lambda: use_threads(1))
        made.get(timeout=30)
        other = threading.Thread(target=use_threads, args=(3,))
        other.start()
        other.join()
        works.put(torch.get_num_threads)
        assert made.get(timeout=30) == 1
    finally:
        works.put(None)
        thread.join()
        torch.set_num_threads(before)


def test_nought_leaves_the_number_as_it_is() -> None:
    before = torch.get_num_threads()
    use_threads(0)
    assert torch.get_num_threads() == before
