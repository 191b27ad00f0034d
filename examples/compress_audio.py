"""Audio to tokens and back: how few bits a second the codec needs, and what comes back."""

import argparse
import asyncio
from pathlib import Path

import numpy as np
from stretto_client import AudioChunk, StrettoClient, Waveform, read_audio, write_audio


async def main(address: str, recording: Path, output: Path) -> None:
    """Encode, count, decode, write."""
    async with StrettoClient(address) as client:
        encoded = await client.encode_audio(read_audio(recording))
        tokens = encoded.tokens
        bits_per_code = np.ceil(np.log2(tokens.codes.max() + 1))  # at least; the codec's card has the true size
        kilobits = tokens.frame_rate_hz * tokens.num_codebooks * bits_per_code / 1000
        print(
            f"{encoded.model.model_id}: {tokens.num_frames} frames of {tokens.num_codebooks} codes, {kilobits:.1f} kb/s"
        )
        chunks: list[AudioChunk] = [chunk async for chunk in client.decode_tokens(tokens, model=encoded.model.name)]
    samples = np.concatenate([chunk.waveform.samples for chunk in chunks], axis=1)[:, : encoded.num_samples]
    write_audio(output, Waveform(samples, chunks[0].waveform.sample_rate_hz))
    print(f"wrote {output}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--address", default="127.0.0.1:50051")
    given = parser.parse_args()
    asyncio.run(main(given.address, given.recording, given.output))
