"""Order recordings by how well they fit a text, and say what the best one sounds like."""

import argparse
import asyncio
from pathlib import Path

from stretto_client import StrettoClient, read_audio


async def main(address: str, text: str, recordings: list[Path]) -> None:
    """Rank all of them in one call, then tag the first."""
    audio = [read_audio(path) for path in recordings]
    async with StrettoClient(address) as client:
        ranking = await client.rank_audio(text, audio)
        for place in ranking.ranked:
            print(f"{place.similarity:+.2f}  {recordings[place.candidate_index]}")
        best = ranking.ranked[0].candidate_index
        for tag in (await client.tag_audio(audio[best])).tags[:5]:
            print(f"{tag.probability:.2f}  {tag.tag}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text")
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--address", default="127.0.0.1:50051")
    given = parser.parse_args()
    asyncio.run(main(given.address, given.text, given.recordings))
