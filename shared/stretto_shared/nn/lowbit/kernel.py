"""The native kernel: the C++ in `native/`, compiled once with the machine's own compiler and kept in a folder.

A machine without a compiler, or a processor without AVX-512 VNNI, has no kernel, and layers compute the same bytes with
torch. A library is loaded only from a folder and a file that belong to this user and that nobody else may write: what
is loaded runs.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("native") / "kernels.cpp"
COMPILERS = ("g++", "clang++", "c++")
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-ffp-contract=off")
THREADS = "-fopenmp"  # the library then shares torch's own threads; without it the kernel has one
COMPILE_TIMEOUT_S = 120.0
_WRITABLE_BY_OTHERS = 0o022
_TILES = 1  # of `Bands` in native/vectors.hpp
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class NativeKernel:
    """The compiled functions, ready to call from any thread; what they read and write is stated in `native/`.

    Tensors are contiguous, on the CPU, and live as long as the call.
    """

    library: Any

    def use_tiles(self, wanted: bool) -> bool:
        """Use the processor's AMX tiles from now on, or not; tell whether they are used.

        Integers are the same either way; bfloat16 is rounded otherwise (`rounded_as`).
        """
        return bool(self.library.stretto_use_tiles(int(wanted)))

    def has_bands(self) -> bool:
        """Whether the processor multiplies bfloat16, as `bands` and `lattice` need: in AMX tiles, or by AVX-512."""
        return bool(self.library.stretto_bands())

    def has_bfloat16_tiles(self) -> bool:
        """Whether AMX tiles multiply bfloat16 now, and not AVX-512."""
        return bool(self.library.stretto_bands() == _TILES)

    def rounded_as(self, arithmetic: str) -> str:
        """The name of an arithmetic in bfloat16 as it is rounded here: AVX-512 sums in another order than AMX tiles."""
        return arithmetic if self.has_bfloat16_tiles() else f"{arithmetic}-vectors"

    def multiply(self, rows: Tensor, weights: Tensor, books: Tensor | None, scales: Tensor, out: Tensor) -> None:
        """Write rows [B, K] times the weights to `out` [B, N]."""
        self.library.stretto_multiply(
            rows.data_ptr(),
            rows.shape[0],
            rows.shape[1],
            out.shape[1],
            weights.data_ptr(),
            None if books is None else books.data_ptr(),
            scales.data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )

    def choose_codebooks(self, units: Tensor, books: Tensor, places: Tensor) -> None:
        """Write the codebook of each group of `units` [N, G, 32] to `books` [N, G], its levels' places to `places`."""
        self.library.stretto_choose_codebooks(
            units.data_ptr(), books.numel(), books.data_ptr(), places.data_ptr(), torch.get_num_threads()
        )

    def remember(
        self,
        store: int,
        capacity: int,
        bits: int,
        num_heads: int,
        head_dim: int,
        first: int,
        keys: Tensor,
        values: Tensor,
    ) -> None:
        """Write keys and values [n, H * E], parts of one tensor perhaps, as steps from `first` on, to `store`."""
        self.library.stretto_remember(
            store,
            capacity,
            bits,
            num_heads,
            head_dim,
            first,
            keys.shape[0],
            keys.data_ptr(),
            values.data_ptr(),
            keys.stride(0),
        )

    def embed(self, table: Any, columns: bytes, out: Tensor) -> bool:
        """Write the sums of columns' embeddings to `out` [N, D]; False if a position or code is out of range."""
        return bool(self.library.stretto_embed(ctypes.byref(table), columns, out.shape[0], out.data_ptr()))

    def guide(self, logits: int, size: int, scale: float, out: int) -> None:
        """Write what lies beyond conditional logits, seen from the unconditional ones that follow; addresses."""
        self.library.stretto_guide(logits, size, scale, out)

    def draw(self, places: bytes, count: int, num_entries: int) -> list[int]:
        """Draw a token for each of the places, as `native/drawing.hpp` lays them out; -1 where numpy has to."""
        tokens = (ctypes.c_int64 * count)()
        self.library.stretto_draw(places, count, num_entries, tokens)
        return list(tokens)

    def decode(self, decoder: Any, x: Tensor, rows: bytes, wanted: bytes, logits: Tensor) -> None:
        """Run one pass: rows x [N, D], changed in place, and the int32 rows `wanted` [M] into `logits` [M, V]."""
        self.library.stretto_decode(
            ctypes.byref(decoder),
            x.data_ptr(),
            rows,
            x.shape[0],
            wanted,
            logits.shape[0],
            logits.data_ptr(),
            torch.get_num_threads(),
        )


def load_native_kernel(folder: Path) -> NativeKernel | None:
    """The kernel, compiled into `folder` where it is not there yet; None, with one line in the log, where none can be.

    Args:
        folder: Made if need be, for this user alone; `~` is this user's home.
    """
    try:
        kernel = NativeKernel(_bind(_compiled(folder.expanduser())))
    except (OSError, RuntimeError, subprocess.SubprocessError, LookupError) as error:  # RuntimeError: no home
        _log.warning("no_native_kernel", reason=str(error), effect="same results from torch, several times slower")
        return None
    if not kernel.library.stretto_is_supported():
        _log.warning(
            "no_native_kernel",
            reason="this processor has no AVX-512 VNNI",
            effect="same results from torch, several times slower",
        )
        return None
    return kernel


def _compiled(folder: Path) -> Path:
    """Path of the library of this source; compiled beside its place and renamed, so that nobody loads half of one."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    version = "" if compiler is None else _run(compiler, "-dumpfullversion", "-dumpmachine")
    sources = [path.read_text("utf-8") for path in sorted(SOURCE.parent.glob("*.[ch]pp"))]
    key = hashlib.sha256("\n".join((*sources, *FLAGS, THREADS, str(compiler), version)).encode())
    path = folder / f"stretto_lowbit_{key.hexdigest()[:16]}.so"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owned(folder)
    if not path.exists():
        if compiler is None:
            raise LookupError(f"no C++ compiler ({', '.join(COMPILERS)}) on the PATH")
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / path.name
            try:
                _run(compiler, *FLAGS, THREADS, str(SOURCE), "-o", str(made))
            except subprocess.CalledProcessError:  # a compiler without OpenMP
                _run(compiler, *FLAGS, str(SOURCE), "-o", str(made))
            made.replace(path)
    _check_owned(path)
    return path


def _check_owned(path: Path) -> None:
    found = path.stat()
    if found.st_uid != os.getuid() or found.st_mode & _WRITABLE_BY_OTHERS:
        raise PermissionError(f"{path} belongs to another user or may be written by others, and is not used")


def _bind(path: Path) -> Any:
    library = ctypes.CDLL(str(path))
    library.stretto_is_supported.restype = ctypes.c_int
    pointer, size, count = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    for name, arguments in {
        "multiply": [pointer, size, size, size, pointer, pointer, pointer, pointer, count],
        "choose_codebooks": [pointer, size, pointer, pointer, count],
        "remember": [pointer, size, count, size, size, size, size, pointer, pointer, size],
        "decode": [pointer, pointer, pointer, size, pointer, size, pointer, count],
        "guide": [pointer, size, ctypes.c_float, pointer],
        "draw": [pointer, size, size, pointer],
        "join_elu": [pointer, pointer, size, size, pointer],
        "convolve": [pointer, size, pointer, pointer],
        "run_cells": [pointer, pointer],
        "run_shifts": [pointer, size, size, size],
        "run_strands": [pointer, size, size],
    }.items():
        function = getattr(library, f"stretto_{name}")
        function.argtypes, function.restype = arguments, None
    library.stretto_bands.restype = count
    library.stretto_embed.argtypes, library.stretto_embed.restype = [pointer, pointer, size, pointer], count
    library.stretto_use_tiles.argtypes, library.stretto_use_tiles.restype = [count], count
    return library


def _run(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S)
    return done.stdout
