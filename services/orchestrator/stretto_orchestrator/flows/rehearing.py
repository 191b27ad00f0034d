"""A stage that hears a recording and is lost in the midst of it hears it again, from the start.

What it had told is told once: the same audio gives the same notes in the same order, so that as many as were told are
left out. Where the recording is no longer kept, the loss ends the analysis, as does a stage that comes back as another
model.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

from stretto_shared.errors import Conflict, NotReady, Overloaded
from stretto_shared.features import ModelInfo
from stretto_shared.score import Score

from stretto_orchestrator.clients import HeardBeats, HeardNotes
from stretto_orchestrator.flows.forking import Branch
from stretto_orchestrator.flows.resuming import Resumes


class _Losses:
    """What one stage has been through in one request."""

    def __init__(self, branch: Branch, resumes: Resumes, stage: str) -> None:
        self._branch = branch
        self._resumes = resumes
        self._stage = stage
        self._was_lost = False

    async def rewind_or_raise(self, error: NotReady | Overloaded) -> None:
        """Return when the stage may hear the recording again; raises `error` where it may not.

        One that is full before anything was lost has not begun: who asked may come again.
        """
        self._was_lost = self._was_lost or isinstance(error, NotReady)
        if not self._was_lost or not self._branch.can_rewind:
            raise error
        await self._resumes.wait_or_raise(self._stage, error)
        if not self._branch.rewind():  # the recording went on meanwhile, and is kept no more
            raise error


async def heard_notes(
    open_stream: Callable[[], AsyncGenerator[HeardNotes, None]], branch: Branch, resumes: Resumes, *, stage: str
) -> AsyncGenerator[HeardNotes, None]:
    """All notes of a branch, each once, however often the stage is lost; the model comes with the first.

    Args:
        open_stream: Opens a stream that hears the branch from where it is.
        branch: What is heard.
        resumes: Who allows to hear it again.
        stage: What the stage is called.

    Raises:
        NotReady: If the stage was lost too often, or what it had heard is no longer kept.
        Overloaded: If it was full from the start, or once too often after it was lost.
        Conflict: If it comes back as another model.
    """
    losses, model = _Losses(branch, resumes, stage), None
    num_told, complete_s = 0, -1.0
    while True:
        num_again = 0
        try:
            async with aclosing(open_stream()) as stream:
                async for part in stream:
                    is_first = model is None
                    model = _same_model(model, part.model, stage)
                    notes = _without(part.notes, num_told - num_again)
                    num_again += part.notes.num_notes
                    if part.complete_s > complete_s or notes.num_notes:
                        num_told, complete_s = max(num_told, num_again), max(complete_s, part.complete_s)
                        yield HeardNotes(notes, complete_s, model if is_first else None)
            return
        except (NotReady, Overloaded) as error:
            await losses.rewind_or_raise(error)


async def heard_beats(
    hear: Callable[[], Awaitable[HeardBeats]], branch: Branch, resumes: Resumes, *, stage: str
) -> HeardBeats:
    """The beats of a branch, however often the stage is lost; the arguments and errors are those of `heard_notes`."""
    losses = _Losses(branch, resumes, stage)
    while True:
        try:
            return await hear()
        except (NotReady, Overloaded) as error:
            await losses.rewind_or_raise(error)


def _without(notes: Score, count: int) -> Score:
    """The notes after the first `count`, of which there may be fewer."""
    if count <= 0:
        return notes
    columns = ("onset_s", "duration_s", "pitch_midi", "velocity", "part_index", "spelling_fifths")
    return replace(notes, **{name: getattr(notes, name)[count:] for name in columns})


def _same_model(began: ModelInfo | None, now: ModelInfo | None, stage: str) -> ModelInfo | None:
    if began is not None and now is not None and began.model_id != now.model_id:
        raise Conflict(
            f"The {stage} stage began with {began.model_id} and came back as {now.model_id}, so the analysis cannot "
            "go on. Send the request again.",
            reason="MODEL_CHANGED",
        )
    return began or now
