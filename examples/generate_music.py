"""Text to music: write the audio while it is being made, then print what made it."""

import argparse
import asyncio
from pathlib import Path

from stretto_client import AudioChunk, AudioFileWriter, Progress, Receipt, StrettoClient


async def main(address: str, prompt: str, output: Path, duration_s: float, seed: int) -> None:
    """Generate one piece."""
    async with StrettoClient(address) as client:
        with AudioFileWriter(output) as file:
            async for event in client.generate_music(prompt, duration_s=duration_s, seed=seed):
                match event:
                    case Progress(stage, done, total):
                        print(f"{stage}: {done} of {total} frames")
                    case AudioChunk():
                        file.write(event.waveform)
                    case Receipt():
                        print(f"first audio after {event.first_audio_latency_s:.2f} s")
                        print(f"real-time factor {event.real_time_factor:.2f}")
                        print("made by " + ", ".join(model.model_id for model in event.models))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("output", type=Path)
    parser.add_argument("--duration-s", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--address", default="127.0.0.1:50051")
    given = parser.parse_args()
    asyncio.run(main(given.address, given.prompt, given.output, given.duration_s, given.seed))
