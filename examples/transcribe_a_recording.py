"""A recording of a piano becomes notes while it is read, then beats and a score, as MIDI and MusicXML."""

import argparse
import asyncio
from pathlib import Path

from stretto_client import (
    AnalysisProgress,
    AnalysisReceipt,
    EngravedScore,
    NoteChunk,
    StrettoClient,
    TrackedBeats,
    read_audio,
    write_beats,
    write_midi,
)


def write_score(name: str, engraved: EngravedScore) -> None:
    """Write the score in both forms."""
    write_midi(Path(f"{name}.mid"), engraved.score)
    Path(f"{name}.musicxml").write_bytes(engraved.musicxml)
    print(f"wrote {name}.mid and {name}.musicxml")


async def main(address: str, recording: Path, name: str) -> None:
    """Write `name`.mid, .beats and .musicxml."""
    async with StrettoClient(address) as client:
        async for event in client.analyze_music(read_audio(recording), title=recording.stem):
            match event:
                case AnalysisProgress():
                    print(f"{event.stage}: {event.done_s:.0f} s")
                case NoteChunk():
                    print(f"{event.notes.num_notes} new notes; nothing more will come before {event.complete_s:.2f} s")
                case TrackedBeats():
                    write_beats(Path(f"{name}.beats"), event)
                    print(f"{event.beat_s.size} beats, {event.numerator} in a bar")
                case EngravedScore():
                    write_score(name, event)
                case AnalysisReceipt():
                    print("heard by", ", ".join(model.model_id for model in event.models))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path)
    parser.add_argument("name", help="of the files to write, without a suffix")
    parser.add_argument("--address", default="127.0.0.1:50051")
    given = parser.parse_args()
    asyncio.run(main(given.address, given.recording, given.name))
