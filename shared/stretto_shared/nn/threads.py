"""How many threads torch's operations use in the calling thread, whatever other threads choose later."""

from __future__ import annotations

import torch


def use_threads(num_threads: int) -> None:
    """Let torch's operations in this thread use so many threads from now on; 0 changes nothing.

    torch keeps the last number that any thread asked for, and gives it to a thread that comes to its first parallel
    operation only then. So a thread that only asked would work with the number of whoever asked after it: to ask
    for the number first makes this thread's own stay.
    """
    if num_threads:
        torch.get_num_threads()
        torch.set_num_threads(num_threads)
