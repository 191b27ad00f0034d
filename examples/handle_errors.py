"""What a backend does with each failure: correct the request, come back later, or give up at its deadline."""

import argparse
import asyncio

from stretto_client import (
    AudioChunk,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    NotReady,
    Overloaded,
    StrettoClient,
    StrettoError,
)

MAX_TRIES = 3


async def count_samples(client: StrettoClient, prompt: str, cascade: str, timeout_s: float) -> int:
    """Samples of one second of music, trying again where the server says that it helps."""
    for _ in range(MAX_TRIES):
        try:
            num_samples = 0
            async for event in client.generate_music(prompt, cascade=cascade, duration_s=1.0, timeout_s=timeout_s):
                if isinstance(event, AudioChunk):
                    num_samples += event.waveform.num_samples
            return num_samples
        except Overloaded as error:
            await asyncio.sleep(error.retry_after_s)
        except NotReady:
            await asyncio.sleep(1.0)
    raise NotReady(f"The server was busy {MAX_TRIES} times.")


async def main(address: str) -> None:
    """Make three mistakes, then a piece of music."""
    attempts = [
        ("", "musicgen", 60.0),
        ("a waltz", "nobody", 60.0),
        ("a waltz", "musicgen", 0.001),
        ("a waltz", "", 60.0),
    ]
    async with StrettoClient(address) as client:
        for prompt, cascade, timeout_s in attempts:
            try:
                print(f"{await count_samples(client, prompt, cascade, timeout_s)} samples of music")
            except InvalidInput as error:
                print(f"correct the field {error.field!r}: {error.description}")
            except NotFound as error:
                print(f"choose another {error.field!r}: {error.description}")
            except DeadlineExceeded:
                print("allow more time")
            except StrettoError as error:
                print(f"give up: {error.reason}: {error}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:50051")
    asyncio.run(main(parser.parse_args().address))
