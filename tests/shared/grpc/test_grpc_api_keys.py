"""API keys on their way: what a channel sends, where it takes a key from, and what no message repeats."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto_shared.errors import InvalidInput, NotReady
from stretto_shared.grpc.api_keys import digest_of, headers_of, new_key, shown_key
from stretto_shared.grpc.channel import open_channel
from stretto_shared.grpc.settings import ChannelSettings

KEY = "stretto_a-key-of-the-tests"
REQUEST = codec_pb2.EncodeAudioRequest()


async def test_a_channel_shows_its_key_with_every_call_and_a_call_may_show_another(serve):
    codec, seen = serve.fake(), []

    async def encode(request, context):
        seen.append(shown_key(dict(context.invocation_metadata())))
        return codec_pb2.EncodeAudioResponse()

    codec.encode = encode
    served = await serve(codec, channel={"api_key": KEY})
    await served.codec.EncodeAudio(REQUEST)
    await served.codec.EncodeAudio(REQUEST, metadata=(("authorization", "Bearer another"),))
    without = codec_pb2_grpc.CodecServiceStub(serve.open(served.address, health_checking=False))
    await without.EncodeAudio(REQUEST)
    assert seen == [KEY, "another", ""]


async def test_a_key_is_not_passed_on_by_the_server_that_it_was_shown_to(serve):
    codec, seen = serve.fake(), []

    async def inner_encode(request, context):
        seen.append(dict(context.invocation_metadata()))
        return codec_pb2.EncodeAudioResponse()

    codec.encode = inner_encode
    inner, outer_codec = await serve(codec), serve.fake()

    async def outer_encode(request, context):
        return await inner.codec.EncodeAudio(request)

    outer_codec.encode = outer_encode
    outer = await serve(outer_codec, channel={"api_key": KEY})
    await outer.codec.EncodeAudio(REQUEST)
    assert len(seen) == 1 and "authorization" not in seen[0]


def test_a_key_comes_from_a_file_too(tmp_path, monkeypatch):
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    monkeypatch.setenv("STRETTO_CHANNEL_API_KEY_PATH", str(path))
    assert headers_of(ChannelSettings()) == {"authorization": f"Bearer {KEY}"}
    path.unlink()
    with pytest.raises(NotReady, match=r"api_key_path: cannot read .*key"):
        headers_of(ChannelSettings())
    with pytest.raises(ValidationError, match="two places"):
        ChannelSettings(api_key=KEY)


@pytest.mark.parametrize("key", ["short", "with spaces in the middle", "stretto_größer-als-ascii", "x" * 201])
def test_what_cannot_be_a_key_is_refused_without_being_repeated(key):
    with pytest.raises(InvalidInput, match="api_key: expected a key of 16 to 200") as caught:
        open_channel("127.0.0.1:1", ChannelSettings(api_key=key))
    assert key not in str(caught.value)


def test_an_empty_file_of_a_key_is_no_permission_to_go_without(tmp_path):
    path = tmp_path / "key"
    path.write_text("\n")
    with pytest.raises(InvalidInput, match="api_key_path"):
        headers_of(ChannelSettings(api_key_path=path))


def test_settings_do_not_show_their_key():
    assert KEY not in repr(ChannelSettings(api_key=KEY)) + str(ChannelSettings(api_key=KEY).model_dump())


@pytest.mark.parametrize(
    ("header", "key"),
    [(f"Bearer {KEY}", KEY), (f"bearer {KEY}", KEY), (f"Basic {KEY}", ""), (KEY, ""), ("Bearer", ""), ("", "")],
)
def test_only_a_bearer_shows_a_key(header, key):
    assert shown_key({"authorization": header}) == key


def test_the_digest_is_that_of_the_whole_key():
    key = new_key()
    assert len(digest_of(key)) == 64 and digest_of(key) != digest_of(key[:-1]) and key not in digest_of(key)
