"""What is there to stay is no longer looked through for garbage: a server's answers do not wait for the collector.

A full collection of Python's garbage collector visits every object that can be part of a cycle, and nothing else runs
meanwhile. With torch and the services imported it takes a quarter of a second; of what requests leave behind, a few
milliseconds. It is the process's own affair, so only programs call this, never a server inside somebody else's process.
"""

from __future__ import annotations

import gc


def settle() -> None:
    """Collect once, and leave out of every later collection what there is now."""
    gc.collect()
    gc.freeze()
