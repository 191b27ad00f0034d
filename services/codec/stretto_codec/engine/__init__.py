"""Audio to tokens and back: domain values in and out. Knows nothing of protobuf and grpc."""

from stretto_codec.engine.codec_engine import CodecEngine, DecodedChunk, EncodedClip, Meter

__all__ = ["CodecEngine", "DecodedChunk", "EncodedClip", "Meter"]
