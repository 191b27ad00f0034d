"""Music that becomes something else on the way: a schedule of prompts, with smooth changes between them."""

import argparse
import asyncio
from pathlib import Path

from stretto_client import AudioChunk, AudioFileWriter, Progress, PromptSpan, StrettoClient


async def main(address: str, prompts: list[str], output: Path, duration_s: float, seed: int) -> None:
    """Give every prompt an equal part of the piece, and every change a third of one."""
    part_s = duration_s / len(prompts)
    story = [PromptSpan(index * part_s, text, part_s / 3) for index, text in enumerate(prompts[1:], start=1)]
    async with StrettoClient(address) as client:
        with AudioFileWriter(output) as file:
            async for event in client.generate_music(
                prompts[0], cascade="musiclm", story=story, duration_s=duration_s, seed=seed
            ):
                match event:
                    case Progress(stage, done, total):
                        print(f"{stage}: {done} of {total} frames")
                    case AudioChunk():
                        file.write(event.waveform)
    print(f"wrote {output}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("prompts", nargs="+", help="what the music should be, one after the other")
    parser.add_argument("--duration-s", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--address", default="127.0.0.1:50051")
    given = parser.parse_args()
    asyncio.run(main(given.address, given.prompts, given.output, given.duration_s, given.seed))
