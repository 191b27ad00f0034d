"""The end of a recording, as the language models that continue it hear it."""

from __future__ import annotations

from stretto_shared.audio import Waveform
from stretto_shared.features import ModelInfo
from stretto_shared.tokens import TokenMatrix

from stretto_orchestrator.clients import CodecClient, EncodedAudio
from stretto_orchestrator.flows.stereo import encode_stereo

MAX_HEARD_S = 10.0


def last_seconds(recording: Waveform) -> Waveform:
    """What of a recording is heard: its last seconds, at most 10."""
    num_samples = min(recording.num_samples, round(MAX_HEARD_S * recording.sample_rate_hz))
    return Waveform(recording.samples[:, recording.num_samples - num_samples :], recording.sample_rate_hz)


def last_whole_frames(recording: Waveform, frame_rate_hz: float) -> Waveform:
    """The last seconds of a recording, at most 10, as a whole number of token frames.

    So the join falls between two frames, and no frame is half silence.
    """
    num_frames = int(min(recording.duration_s, MAX_HEARD_S) * frame_rate_hz + 1e-9)
    num_samples = round(num_frames / frame_rate_hz * recording.sample_rate_hz)
    return Waveform(recording.samples[:, recording.num_samples - num_samples :], recording.sample_rate_hz)


def whole_frames(encoded: EncodedAudio) -> TokenMatrix:
    """The tokens without a last frame that reaches past the end of the audio."""
    samples_per_frame = encoded.model.sample_rate_hz / encoded.tokens.frame_rate_hz
    num_frames = max(1, int((encoded.num_samples + 0.5) / samples_per_frame))
    return encoded.tokens.frames(0, min(num_frames, encoded.tokens.num_frames))


async def encoded_for(listener: ModelInfo, codec: CodecClient, codec_model: str, recording: Waveform) -> TokenMatrix:
    """The end of a recording as that language model hears it: with so many codebooks, in mono or in stereo."""
    heard = last_whole_frames(recording, listener.frame_rate_hz)
    num_codebooks = listener.num_codebooks
    if listener.is_stereo:
        encoded = await encode_stereo(codec, codec_model, heard, num_codebooks=num_codebooks, field="audio")
    else:
        encoded = await codec.encode(codec_model, heard, num_codebooks=num_codebooks, field="audio")
    return whole_frames(encoded)
