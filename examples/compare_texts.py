"""Which of some captions is closest to a text, by the cosine of their pooled embeddings."""

import argparse
import asyncio

from stretto_client import StrettoClient


async def main(address: str, text: str, captions: list[str]) -> None:
    """Embed all in one call and rank the captions."""
    async with StrettoClient(address) as client:
        embedded = await client.embed_text([text, *captions])
    asked, *others = (state.pooled for state in embedded.states)  # of unit length
    ranked = sorted(zip(captions, others), key=lambda pair: -float(asked @ pair[1]))
    for caption, vector in ranked:
        print(f"{float(asked @ vector):.3f}  {caption}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text")
    parser.add_argument("captions", nargs="+")
    parser.add_argument("--address", default="127.0.0.1:50051")
    given = parser.parse_args()
    asyncio.run(main(given.address, given.text, given.captions))
