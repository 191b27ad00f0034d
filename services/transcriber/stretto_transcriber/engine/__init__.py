"""Audio in, notes or beats out; a performance in, a score out. Knows nothing of protobuf and grpc."""

from stretto_transcriber.engine.engraving import EngravedMusic, Engraving
from stretto_transcriber.engine.hearing import Hearing, Meter
from stretto_transcriber.engine.tracking import Tracking
from stretto_transcriber.engine.transcriber_engine import TranscriberEngine
from stretto_transcriber.engine.transcribing import NewNotes, Transcribing

__all__ = [
    "EngravedMusic",
    "Engraving",
    "Hearing",
    "Meter",
    "NewNotes",
    "Tracking",
    "TranscriberEngine",
    "Transcribing",
]
