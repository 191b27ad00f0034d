"""Pieces longer than a model's window: one request to the token engine after another, and frames out.

A model that reads `window_frames` at most makes a long piece window by window, as AudioLM and MusicLM do: window i
covers the frames [i * stride, i * stride + window), begins with those that it shares with the windows before it, which
is its prompt, and draws the rest. The last may be shorter. Where the condition changes, a window ends and the next one
begins, so that a change is heard from its very frame on.

The layout follows from the piece alone, and the noise of a token from its place in the piece, never from its window. So
a piece resumed at any frame goes on in the window that an unbroken run would be in, with the same bytes
(`tests/shared/engine/test_windows.py`).

A window is asked for when its condition is there, and its blocks are taken as fast as they come: a piece holds a slot
only while one of its windows is being made, whether its source or its reader lags.

To the token engine a piece is a flattened stream of one codebook: codebook 0 to K - 1 of frame 0, then of frame 1. Here
its tokens become frames. Knows nothing of what a condition is.

Legend: K codebooks, T frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from stretto_shared.engine.config import TokenEngineConfig
from stretto_shared.engine.program import TokenBlock, TokenRequest
from stretto_shared.engine.sampling import Sampling
from stretto_shared.engine.slots import Piece
from stretto_shared.engine.token_engine import TokenEngine

Condition = TypeVar("Condition")
State = TypeVar("State")


@dataclass(frozen=True)
class Window:
    """Frames [start, stop) of a piece: those before `first_new` are known when it begins, the others drawn in it."""

    start: int
    first_new: int
    stop: int

    @property
    def num_frames(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class WindowLayout:
    """How pieces lie in windows.

    Args:
        num_codebooks: K.
        window_frames: Most frames of a window.
        stride_frames: From the start of one window to that of the next; 1 to `window_frames`.
    """

    num_codebooks: int
    window_frames: int
    stride_frames: int

    def __post_init__(self) -> None:
        if self.num_codebooks < 1 or not 1 <= self.stride_frames <= self.window_frames:
            raise ValueError(
                f"expected at least 1 codebook and a stride of 1 to {self.window_frames} frames (the window), got "
                f"{self.num_codebooks} and {self.stride_frames}."
            )

    @property
    def window_tokens(self) -> int:
        return self.window_frames * self.num_codebooks

    def windows(self, num_frames: int, cuts: Sequence[int] = ()) -> Iterator[Window]:
        """The windows of a piece, in order; none draws across a frame of `cuts`, which rise."""
        shared, first_new = self.window_frames - self.stride_frames, 0
        ends = iter([*(cut for cut in cuts if 0 < cut < num_frames), num_frames])
        end = next(ends)
        while first_new < num_frames:
            while end <= first_new:
                end = next(ends)
            start = max(0, first_new - shared)
            stop = min(start + self.window_frames, end)
            yield Window(start, first_new, stop)
            first_new = stop

    def limits(self, config: TokenEngineConfig) -> TokenEngineConfig:
        """Limits given in frames, as the token engine of flattened tokens takes them.

        It never pauses a window for its reader: what a reader may lag behind is a window, and the slot is free then.
        """
        return dataclasses.replace(
            config,
            first_block_frames=config.first_block_frames * self.num_codebooks,
            block_frames=config.block_frames * self.num_codebooks,
            max_unread_blocks=max(config.max_unread_blocks, self.window_tokens),
        )


@dataclass(frozen=True, eq=False)
class WindowedRequest(Generic[Condition]):
    """One piece of any length.

    Args:
        num_frames: Length of the whole piece, prompt included.
        prompt: Frames [K, T] that the piece begins with; never given back.
        resume_from: Frames [K, T] after the prompt that an earlier call gave; not given again.
        sampling: How to draw.
        seed: Of the noise, 0 to 2^64 - 1.
        typical: A condition as large as any of the piece's, by which its place is reckoned before it begins.
        cuts: Frames at which the condition changes, rising.
        is_realtime: Somebody listens while it is made.
        priority: 0 to 9, of a best-effort piece.
    """

    num_frames: int
    prompt: NDArray[np.int32]
    resume_from: NDArray[np.int32]
    sampling: Sampling
    seed: int
    typical: Condition
    cuts: tuple[int, ...] = ()
    is_realtime: bool = False
    priority: int = 0


class WindowedEngine(Generic[Condition, State]):
    """Makes pieces window by window.

    Args:
        tokens: The engine of the flattened tokens: one codebook without delay, limits as `WindowLayout.limits` gives
            them, and a frame rate K times that of the frames.
        layout: The model's windows.
    """

    def __init__(self, tokens: TokenEngine[Condition, State], layout: WindowLayout) -> None:
        self._tokens = tokens
        self._layout = layout

    def check_fits(self, wanted: WindowedRequest[Condition]) -> None:
        """Refuse a piece none of whose windows could ever run.

        Raises:
            InvalidInput: If one window alone needs more cache than the whole budget.
        """
        self._tokens.check_fits(_admission(wanted, self._layout))

    async def generate(
        self,
        wanted: WindowedRequest[Condition],
        condition_of: Callable[[Window], Awaitable[Condition]],
        *,
        on_window: Callable[[float, float], None] | None = None,
    ) -> AsyncGenerator[TokenBlock, None]:
        """Stream the new frames [K, n] of a piece; closing the iterator frees its slot before the next step.

        Args:
            wanted: The piece.
            condition_of: What the model is told of a window; awaited before the window is asked for.
            on_window: Called after each window with the seconds that it waited for a slot and that it held one.

        Raises:
            StrettoError: What `TokenEngine.generate` raises, before the first window; and what `condition_of` raises.
        """
        known = np.concatenate([wanted.prompt, wanted.resume_from], axis=1)
        first_unknown, known_from = known.shape[1], 0
        windows = [w for w in self._layout.windows(wanted.num_frames, wanted.cuts) if w.stop > first_unknown]
        piece = self._tokens.open_piece(_admission(wanted, self._layout))
        try:
            for window in windows:
                known, known_from = known[:, window.start - known_from :], window.start
                condition = await condition_of(window)
                async with aclosing(self._window(piece, _request(wanted, window, condition, known))) as blocks:
                    async for codes in blocks:
                        yield TokenBlock(codes, known_from + known.shape[1])
                        known = np.concatenate([known, codes], axis=1)
                if on_window is not None:
                    _tell(on_window, piece)
        finally:
            self._tokens.close_piece(piece)

    async def _window(
        self, piece: Piece[Condition, State], request: TokenRequest[Condition]
    ) -> AsyncGenerator[NDArray[np.int32], None]:
        """Whole frames [K, n] of one window as their tokens come."""
        num_codebooks, rest = self._layout.num_codebooks, np.zeros(0, dtype=np.int32)
        async with aclosing(self._tokens.generate(request, piece=piece)) as blocks:
            async for block in blocks:
                rest = np.concatenate([rest, block.codes[0]])
                num_frames = rest.size // num_codebooks
                if num_frames:
                    whole, rest = np.split(rest, [num_frames * num_codebooks])
                    yield np.ascontiguousarray(whole.reshape(num_frames, num_codebooks).T)


def _request(
    wanted: WindowedRequest[Condition], window: Window, condition: Condition, known: NDArray[np.int32]
) -> TokenRequest[Condition]:
    """One window as the token engine takes it: `known` [K, n] from its start on, the rest to be drawn."""
    num_codebooks = known.shape[0]
    none = np.zeros((1, 0), dtype=np.int32)
    return TokenRequest(
        condition=condition,
        num_frames=window.num_frames * num_codebooks,
        prompt=known.T.reshape(1, -1),
        resume_from=none,
        sampling=wanted.sampling,
        seed=wanted.seed,
        is_realtime=wanted.is_realtime,
        priority=wanted.priority,
        noise_offset=window.start * num_codebooks,
        num_later_frames=(wanted.num_frames - window.stop) * num_codebooks,
    )


def _admission(wanted: WindowedRequest[Condition], layout: WindowLayout) -> TokenRequest[Condition]:
    """The longest window of a piece, for the engine to say whether there is room."""
    longest = Window(0, 0, min(wanted.num_frames, layout.window_frames))
    return _request(wanted, longest, wanted.typical, wanted.prompt[:, :0])


def _tell(on_window: Callable[[float, float], None], piece: Piece[Condition, State]) -> None:
    """From the times that the model thread noted, which no reader delays."""
    stream = piece.stream
    ended_s = stream.started_s if stream.last_block_s is None else stream.last_block_s
    on_window(stream.started_s - stream.arrived_s, ended_s - stream.started_s)
