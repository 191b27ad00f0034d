"""Go on where a recording ends; the file has the end of the recording, then the new music, without a seam."""

import argparse
import asyncio
from pathlib import Path

from stretto_client import AudioChunk, AudioFileWriter, Receipt, StrettoClient, read_audio


async def main(address: str, recording: Path, output: Path, duration_s: float) -> None:
    """Continue one recording."""
    async with StrettoClient(address) as client:
        with AudioFileWriter(output) as file:
            async for event in client.continue_music(read_audio(recording), duration_s=duration_s, seed=7):
                match event:
                    case AudioChunk():
                        file.write(event.waveform)
                    case Receipt():
                        print(f"{event.duration_s:g} s of new music after sha256 {event.input_sha256[:12]}…")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--duration-s", type=float, default=10.0)
    parser.add_argument("--address", default="127.0.0.1:50051")
    given = parser.parse_args()
    asyncio.run(main(given.address, given.recording, given.output, given.duration_s))
