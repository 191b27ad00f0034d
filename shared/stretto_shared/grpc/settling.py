"""What keeps a program's event loop from answering while it loads and after, though nothing on it takes long.

A full collection of Python's garbage collector visits every object that can be part of a cycle, and nothing else runs
meanwhile. With torch and the services imported it takes a quarter of a second; of what requests leave behind, a few
milliseconds. And threads that load models keep Python's lock for 5 ms each before another has it. Both are the
process's own affair, so only programs call this, never a server inside somebody else's process.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LOADING_SWITCH_S = 0.0005


def settle() -> None:
    """Collect once, and leave out of every later collection what there is now."""
    gc.collect()
    gc.freeze()


@contextmanager
def switching_often() -> Iterator[None]:
    """Have threads that load models give Python's lock away sooner than usual."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(min(usual_s, LOADING_SWITCH_S))
    try:
        yield
    finally:
        sys.setswitchinterval(usual_s)
