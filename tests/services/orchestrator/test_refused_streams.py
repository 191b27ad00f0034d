"""`stretto_shared.grpc.streams.write`: a stream that is refused while it is written keeps the server's own status."""

import asyncio

import grpc
import pytest
from stretto_shared.errors import Overloaded
from stretto_shared.grpc.streams import write


@pytest.mark.parametrize("pause_s", [0, 0.001, 0.01])
async def test_a_refusal_in_the_middle_of_writes_is_never_internal(house, pause_s):
    house.codec.watched.error = Overloaded("Full.", retry_after_s=1)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{house.ports['codec']}") as channel:
        for _ in range(10):
            call = channel.stream_stream("/stretto.codec.v1.CodecService/DecodeTokens")(timeout=20)
            writes = 0
            while writes < 200 and await write(call, b""):
                writes += 1
                await asyncio.sleep(pause_s)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
