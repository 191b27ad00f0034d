"""The same prompt with and without a melody: two files to compare by ear."""

import argparse
import asyncio
from pathlib import Path

from stretto_client import AudioChunk, AudioFileWriter, StrettoClient, Waveform, read_audio


async def write_piece(
    client: StrettoClient, prompt: str, melody: Waveform | None, duration_s: float, output: Path
) -> None:
    """Generate one piece and write its audio."""
    with AudioFileWriter(output) as file:
        async for event in client.generate_music(prompt, melody=melody, duration_s=duration_s, seed=7):
            if isinstance(event, AudioChunk):
                file.write(event.waveform)
    print(f"wrote {output}")


async def main(address: str, prompt: str, melody: Path, folder: Path, duration_s: float) -> None:
    """Generate both pieces at the same time over one connection."""
    async with StrettoClient(address) as client:
        await asyncio.gather(
            write_piece(client, prompt, read_audio(melody), duration_s, folder / "with-melody.wav"),
            write_piece(client, prompt, None, duration_s, folder / "without-melody.wav"),
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("melody", type=Path, help="a recording of the melody")
    parser.add_argument("folder", type=Path, help="where the two files go")
    parser.add_argument("--duration-s", type=float, default=10.0)
    parser.add_argument("--address", default="127.0.0.1:50051")
    given = parser.parse_args()
    asyncio.run(main(given.address, given.prompt, given.melody, given.folder, given.duration_s))
