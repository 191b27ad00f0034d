"""The client of Stretto: `StrettoClient`, the values that it speaks, and the errors that it raises.

Needs no torch and no service. See `stretto_client.client` for the methods and README.md for a first program.
"""

from stretto_shared.audio import Waveform
from stretto_shared.errors import Conflict, InvalidInput, NotFound, NotReady, Overloaded, StrettoError
from stretto_shared.features import Chromagram, JointEmbedding, ModelInfo, SamplingOptions, TextStates
from stretto_shared.score import Key, Part, Score, Tempo, TimeSignature
from stretto_shared.tokens import TokenMatrix, concatenate

from stretto_client.audio_files import AudioFileWriter, open_audio, read_audio, write_audio
from stretto_client.beat_files import write_beats
from stretto_client.client import StrettoClient, TlsFiles
from stretto_client.embedded import embedded_server
from stretto_client.errors import DeadlineExceeded, RequestCancelled, ServerFailure, Unreachable
from stretto_client.midi_files import write_midi
from stretto_client.token_files import read_tokens, write_tokens
from stretto_client.values import (
    AnalysisEvent,
    AnalysisProgress,
    AnalysisReceipt,
    AudioChunk,
    EmbeddedAudio,
    EmbeddedMelody,
    EmbeddedText,
    EncodedAudio,
    EngravedScore,
    ModelList,
    MusicEvent,
    NoteChunk,
    NoteEnds,
    Pace,
    Progress,
    PromptSpan,
    RankedAudio,
    Ranking,
    Receipt,
    ScoredTag,
    Section,
    TagList,
    TokenChunk,
    TrackedBeats,
)

__all__ = [
    "StrettoClient",
    "TlsFiles",
    "embedded_server",
    "Waveform",
    "TokenMatrix",
    "concatenate",
    "TextStates",
    "JointEmbedding",
    "Chromagram",
    "Score",
    "Part",
    "Tempo",
    "TimeSignature",
    "Key",
    "SamplingOptions",
    "ModelInfo",
    "Pace",
    "PromptSpan",
    "Progress",
    "AudioChunk",
    "Receipt",
    "MusicEvent",
    "EncodedAudio",
    "TokenChunk",
    "NoteChunk",
    "TrackedBeats",
    "EngravedScore",
    "NoteEnds",
    "Section",
    "AnalysisProgress",
    "AnalysisReceipt",
    "AnalysisEvent",
    "EmbeddedText",
    "EmbeddedAudio",
    "EmbeddedMelody",
    "RankedAudio",
    "Ranking",
    "ScoredTag",
    "TagList",
    "ModelList",
    "read_audio",
    "open_audio",
    "write_audio",
    "AudioFileWriter",
    "read_tokens",
    "write_tokens",
    "write_midi",
    "write_beats",
    "StrettoError",
    "InvalidInput",
    "NotFound",
    "NotReady",
    "Overloaded",
    "Conflict",
    "DeadlineExceeded",
    "RequestCancelled",
    "ServerFailure",
    "Unreachable",
]
