"""What the client's methods return: frozen dataclasses, no protobuf. Audio and tokens are `stretto_shared`'s own."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from stretto_shared.audio import Waveform
from stretto_shared.features import Chromagram, JointEmbedding, ModelInfo, SamplingOptions, TextStates
from stretto_shared.harmony import HarmonyLabel
from stretto_shared.score import Score
from stretto_shared.tokens import TokenMatrix


class Pace(StrEnum):
    """Whether somebody listens while the music is made.

    `BEST_EFFORT` waits for its turn as long as the deadline allows. `REALTIME` is made before its listener, who began
    with the first chunk, runs dry, or is refused at once with `Overloaded`, which says when to come back.
    """

    BEST_EFFORT = "best_effort"
    REALTIME = "realtime"


@dataclass(frozen=True)
class PromptSpan:
    """Of a story, what the music should become from `start_s` on; None takes the server's time for the change."""

    start_s: float
    prompt: str
    blend_s: float | None = None


@dataclass(frozen=True)
class Progress:
    """How far a stage is: token frames done of the whole piece's.

    A stage is named by its service, and its model too where a service works on one piece with several.
    """

    stage: str
    num_done_frames: int
    num_total_frames: int


@dataclass(frozen=True, eq=False)
class AudioChunk:
    """The next piece of audio; chunks come in order and without gaps."""

    waveform: Waveform
    first_sample_index: int


@dataclass(frozen=True)
class Receipt:
    """What made a piece of music: with the request's own inputs, enough to make the same bytes again.

    The two latencies and `resume_count` describe this run; a replay does not reproduce them.
    """

    cascade: str
    prompt: str
    seed: int
    duration_s: float
    sampling: SamplingOptions
    models: tuple[ModelInfo, ...]
    stretto_version: str
    input_sha256: str
    output_sha256: str
    first_audio_latency_s: float
    total_latency_s: float
    resume_count: int
    story: tuple[PromptSpan, ...] = ()
    candidate_count: int = 1
    similarity: float = 0.0

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of music; below 1 is faster than playing."""
        return self.total_latency_s / self.duration_s


MusicEvent = Progress | AudioChunk | Receipt


@dataclass(frozen=True, eq=False)
class EncodedAudio:
    """A clip as tokens. `num_samples` at the codec's rate is what a decoder keeps of its output."""

    tokens: TokenMatrix
    model: ModelInfo
    num_samples: int


@dataclass(frozen=True, eq=False)
class TokenChunk:
    """The next semantic tokens of a recording, and the tokenizer that made them; in order and without gaps."""

    tokens: TokenMatrix
    first_frame_index: int
    model: ModelInfo


@dataclass(frozen=True, eq=False)
class EmbeddedText:
    """Texts as vectors, in order, and the encoder that made them: `TextStates`, or a joint encoder's points.

    The one of `states` and `embeddings` that the encoder does not make is empty.
    """

    states: tuple[TextStates, ...]
    model: ModelInfo
    embeddings: tuple[JointEmbedding, ...] = ()


@dataclass(frozen=True, eq=False)
class EmbeddedAudio:
    """A recording as the mean of its windows; the windows in order of time, one every `stride_s` of `window_s`."""

    embedding: JointEmbedding
    windows: tuple[JointEmbedding, ...]
    window_s: float
    stride_s: float
    model: ModelInfo


@dataclass(frozen=True)
class RankedAudio:
    """Which of the candidates, and its cosine to the query, -1 to 1."""

    candidate_index: int
    similarity: float


@dataclass(frozen=True)
class Ranking:
    """Recordings, best first, and the encoder that judged."""

    ranked: tuple[RankedAudio, ...]
    model: ModelInfo


@dataclass(frozen=True)
class ScoredTag:
    """A tag, its cosine to the recording, and its share of 1 among all tags that were tried."""

    tag: str
    similarity: float
    probability: float


@dataclass(frozen=True)
class TagList:
    """Tags, best first, and the encoder that judged."""

    tags: tuple[ScoredTag, ...]
    model: ModelInfo


@dataclass(frozen=True, eq=False)
class EmbeddedMelody:
    """A melody as pitch classes over time, or as the codes of a melody encoder, which is named then."""

    melody: Chromagram | None
    codes: TokenMatrix | None
    model: ModelInfo | None


@dataclass(frozen=True, eq=False)
class NoteChunk:
    """Notes of a recording that are final, in no other chunk; all that begin before `complete_s` have come by now.

    `model` is who heard them; None in an analysis, whose receipt names it.
    """

    notes: Score
    complete_s: float
    model: ModelInfo | None = None


@dataclass(frozen=True, eq=False)
class TrackedBeats:
    """The beats of a recording: B of them, and M onsets. There may be none.

    Args:
        beat_s: float64 [B], rising.
        beat_in_bar: int32 [B], 1 on a downbeat; empty where the model tells no bars.
        tempo_bpm: float64 [B], beats a minute around each beat; 0 is unknown, of one beat alone.
        numerator: How many beats most bars have; 0 where the model tells no bars.
        onset_s: float64 [M], when something begins to sound.
        model: Who heard them; None in an analysis, whose receipt names it.
    """

    beat_s: NDArray[np.float64]
    beat_in_bar: NDArray[np.int32]
    tempo_bpm: NDArray[np.float64]
    numerator: int
    onset_s: NDArray[np.float64]
    model: ModelInfo | None = None


@dataclass(frozen=True, eq=False)
class EngravedScore:
    """A performance as written: times at its written tempo, and the same as MusicXML."""

    score: Score
    musicxml: bytes


@dataclass(frozen=True, eq=False)
class LabelledScore:
    """The harmony of a recording's score, neighbours that say the same as one, and the score with it as MusicXML."""

    labels: tuple[HarmonyLabel, ...]
    musicxml: bytes


class NoteEnds(StrEnum):
    """When a note ends: with its sound, the sustain pedal included, or with its key, wherever the pedal is."""

    SOUND = "sound"
    KEY = "key"


class Section(StrEnum):
    """One part of an analysis; they come in this order."""

    NOTES = "notes"
    BEATS = "beats"
    SCORE = "score"
    HARMONY = "harmony"


@dataclass(frozen=True)
class AnalysisProgress:
    """How many seconds of the recording a stage is done with; 0 where it begins, or does not tell."""

    stage: str
    done_s: float


@dataclass(frozen=True)
class AnalysisReceipt:
    """What made an analysis: with the recording, enough to make it again."""

    sections: tuple[Section, ...]
    models: tuple[ModelInfo, ...]
    duration_s: float
    input_sha256: str
    stretto_version: str
    total_latency_s: float


AnalysisEvent = AnalysisProgress | NoteChunk | TrackedBeats | EngravedScore | LabelledScore | AnalysisReceipt


@dataclass(frozen=True)
class ModelList:
    """Every model behind a door, and the services that did not answer."""

    models: tuple[ModelInfo, ...]
    unreachable_services: tuple[str, ...]
