"""The table of `test_every_rpc`: each method of every service, a good request, bad ones and a long one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import harmony_rpcs
import numpy as np
from real_server import tune
from stretto.acoustic.v1 import acoustic_pb2
from stretto.codec.v1 import codec_pb2
from stretto.common.v1 import audio_pb2, features_pb2, model_pb2, score_pb2, tokens_pb2
from stretto.embedding.v1 import embedding_pb2
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto.semantic.v1 import semantic_pb2
from stretto.transcriber.v1 import transcriber_pb2
from stretto_shared.features import ModelInfo
from stretto_shared.grpc import convert

AUDIO = convert.waveform_to_proto(tune(("A", 440.0)))
AUDIO_48 = convert.waveform_to_proto(tune(("A", 440.0), sample_rate_hz=48_000))
NAN_AUDIO = audio_pb2.Waveform(sample_rate_hz=24_000, channel_count=1, samples=np.full(9, np.nan, "<f4").tobytes())
SLOW_RATE_AUDIO = audio_pb2.Waveform(sample_rate_hz=100, channel_count=1, samples=bytes(400))
PERFORMANCE = score_pb2.Score(
    onset_s=[0.0, 0.5], duration_s=[0.4, 0.9], pitch_midi=[60, 64], velocity=[64, 80], part_index=[0, 0],
    parts=[score_pb2.Part(name="piano")], beat_s=[0.0, 0.5, 1.0, 1.5], beat_in_bar=[1, 2, 3, 1],
)  # fmt: skip
WRONG_MELODY = features_pb2.Chromagram(frame_rate_hz=7.8125, pitch_classes=[12])
HOT = model_pb2.SamplingOptions(temperature=99.0)


@dataclass(frozen=True)
class Rpc:
    """One method: a good request, bad ones with the field that their error must name, and a long one to cut short."""

    method: str
    good: Any
    bad: tuple[tuple[Any, str], ...] = ()
    long: Any = None
    streams_requests: bool = False
    works_at: str = "/stretto.acoustic.v1.AcousticService/GenerateTokens"  # the method that a long one keeps busy


def rpcs(models: Mapping[str, ModelInfo]) -> list[Rpc]:
    """The table, with tokens and codes of the server's own models."""
    codec, encoder_id, tokenizer_id = models["codec"], models["mulan"].model_id, models["w2vbert"].model_id
    num_codebooks, rate_hz = codec.num_codebooks, codec.frame_rate_hz
    music, onward = orchestrator_pb2.GenerateMusicRequest, orchestrator_pb2.ContinueMusicRequest
    tokens, decode = acoustic_pb2.GenerateTokensRequest, codec_pb2.DecodeTokensRequest
    check, tokenize = acoustic_pb2.CheckAdmissionRequest, semantic_pb2.TokenizeAudioRequest
    tokenizer = tokenize(config=semantic_pb2.TokenizeConfig())
    config = decode(config=codec_pb2.DecodeConfig())
    shape = {"codec_id": codec.model_id, "frame_rate_hz": rate_hz, "codebook_count": num_codebooks}
    matrix = tokens_pb2.TokenMatrix(**shape, codes=[1] * num_codebooks * 10)
    ragged = tokens_pb2.TokenMatrix(**shape, codes=[1] * (num_codebooks * 10 + 1))
    rank, tag = embedding_pb2.RankAudioRequest, embedding_pb2.TagAudioRequest
    quantize, hear = embedding_pb2.QuantizeEmbeddingsRequest, embedding_pb2.EmbedAudioRequest
    point = features_pb2.JointEmbedding(encoder_id=encoder_id, values=[1.0] * 128)
    foreign_point = features_pb2.JointEmbedding(encoder_id="other@0", values=[1.0] * 128)
    style = features_pb2.StyleSpan(encoder_id=encoder_id, codes=[1] * 8)
    late_style = features_pb2.StyleSpan(start_s=1.0, encoder_id=encoder_id, codes=[1] * 8)
    foreign_style = features_pb2.StyleSpan(encoder_id="other@0", codes=[1] * 8)
    story = [orchestrator_pb2.PromptSpan(start_s=0.3, prompt="a storm")]
    think, refine = semantic_pb2.GenerateTokensRequest, acoustic_pb2.RefineTokensRequest
    happened = {"codec_id": tokenizer_id, "frame_rate_hz": 25.0, "codebook_count": 1}
    source = refine(source=tokens_pb2.TokenMatrix(**happened, codes=[1] * 24))  # 0.96 s
    foreign_source = refine(source=tokens_pb2.TokenMatrix(**happened | {"codec_id": "other@0"}, codes=[1] * 24))
    coarse = acoustic_pb2.RefineConfig(model="musiclm_coarse", styles=[style], duration_s=0.96)
    longer = acoustic_pb2.RefineConfig(model="musiclm_coarse", styles=[style], duration_s=9.6)
    analyze, analysis = orchestrator_pb2.AnalyzeMusicRequest, orchestrator_pb2.AnalyzeConfig
    transcribe, track = transcriber_pb2.TranscribeAudioRequest, transcriber_pb2.TrackBeatsRequest
    notes_wanted = transcribe(config=transcriber_pb2.TranscribeConfig())
    beats_wanted = track(config=transcriber_pb2.TrackBeatsConfig())
    engrave = transcriber_pb2.EngraveScoreRequest
    return [
        Rpc(
            "/stretto.orchestrator.v1.OrchestratorService/GenerateMusic",
            music(prompt="a flute", duration_s=0.5),
            (
                (music(prompt=""), "prompt"),
                (music(prompt="x" * 2001), "prompt"),
                (music(prompt="x", duration_s=31), "duration_s"),
                (music(prompt="x", duration_s=float("nan")), "duration_s"),
                (music(prompt="x", sampling=HOT), "sampling.temperature"),
                (music(prompt="x", melody=NAN_AUDIO), "melody.samples"),
                (music(prompt="x", pace=99), "pace"),
                (music(prompt="x", priority=10), "priority"),
                (music(prompt="x", cascade="nobody"), "cascade"),
                (music(prompt="x", story=story), "story"),
                (music(prompt="x", cascade="musiclm", duration_s=301), "duration_s"),
                (music(prompt="x", cascade="musiclm", duration_s=0.2, story=story), "story[0].start_s"),
                (music(prompt="x", candidate_count=9), "candidate_count"),
            ),
            music(prompt="a flute", duration_s=30),
        ),
        Rpc(
            "/stretto.orchestrator.v1.OrchestratorService/ContinueMusic",
            onward(audio=AUDIO, duration_s=0.5),
            (
                (onward(duration_s=1), "audio"),
                (onward(audio=SLOW_RATE_AUDIO), "audio.sample_rate_hz"),
                (onward(audio=AUDIO, duration_s=21), "duration_s"),
                (onward(audio=AUDIO, pace=99), "pace"),
                (onward(audio=AUDIO, priority=-1), "priority"),
                (onward(audio=AUDIO, cascade="nobody"), "cascade"),
            ),
            onward(audio=AUDIO, duration_s=20),
        ),
        Rpc(
            "/stretto.orchestrator.v1.OrchestratorService/AnalyzeMusic",
            [analyze(config=analysis()), analyze(waveform=AUDIO)],
            (
                ([analyze(waveform=AUDIO)], "config"),
                ([analyze(config=analysis()), analyze(config=analysis())], "config"),
                ([analyze(config=analysis(sections=[1, 9]))], "config.sections[1]"),
                ([analyze(config=analysis(title="x" * 201))], "config.title"),
                ([analyze(config=analysis(note_ends=9))], "config.note_ends"),
                ([analyze(config=analysis()), analyze(waveform=NAN_AUDIO)], "waveform.samples"),
                ([analyze(config=analysis(note_model="nobody")), analyze(waveform=AUDIO)], "config.note_model"),
                ([analyze(config=analysis(beat_model="nobody")), analyze(waveform=AUDIO)], "config.beat_model"),
                ([analyze(config=analysis(sections=[1, 0]))], "config.sections[1]"),
            ),
            streams_requests=True,
        ),
        Rpc("/stretto.orchestrator.v1.OrchestratorService/ListModels", orchestrator_pb2.ListModelsRequest()),
        Rpc(
            "/stretto.codec.v1.CodecService/EncodeAudio",
            codec_pb2.EncodeAudioRequest(waveform=AUDIO),
            (
                (codec_pb2.EncodeAudioRequest(), "waveform"),
                (codec_pb2.EncodeAudioRequest(waveform=NAN_AUDIO), "waveform.samples"),
                (codec_pb2.EncodeAudioRequest(waveform=AUDIO, codebook_count=99), "codebook_count"),
                (codec_pb2.EncodeAudioRequest(waveform=AUDIO, model="nobody"), "model"),
            ),
        ),
        Rpc(
            "/stretto.codec.v1.CodecService/DecodeTokens",
            [config, decode(tokens=matrix)],
            (
                ([decode(tokens=matrix)], "config"),
                ([config, decode(tokens=ragged)], "tokens"),
                ([decode(config=codec_pb2.DecodeConfig(model="nobody"))], "config.model"),
            ),
            streams_requests=True,
        ),
        Rpc("/stretto.codec.v1.CodecService/ListModels", codec_pb2.ListModelsRequest()),
        Rpc(
            "/stretto.embedding.v1.EmbeddingService/EmbedText",
            embedding_pb2.EmbedTextRequest(texts=["a flute"]),
            (
                (embedding_pb2.EmbedTextRequest(), "texts"),
                (embedding_pb2.EmbedTextRequest(texts=["x"] * 65), "texts"),
                (embedding_pb2.EmbedTextRequest(texts=["good", ""]), "texts[1]"),
                (embedding_pb2.EmbedTextRequest(texts=["a"], model="nobody"), "model"),
            ),
        ),
        Rpc(
            "/stretto.embedding.v1.EmbeddingService/EmbedMelody",
            embedding_pb2.EmbedMelodyRequest(waveform=AUDIO),
            (
                (embedding_pb2.EmbedMelodyRequest(), "waveform"),
                (embedding_pb2.EmbedMelodyRequest(waveform=NAN_AUDIO), "waveform.samples"),
            ),
        ),
        Rpc(
            "/stretto.embedding.v1.EmbeddingService/EmbedAudio",
            hear(waveform=AUDIO),
            (
                (hear(), "waveform"),
                (hear(waveform=NAN_AUDIO), "waveform.samples"),
                (hear(waveform=AUDIO, model="minilm"), "model"),
                (hear(waveform=AUDIO, model="nobody"), "model"),
            ),
        ),
        Rpc(
            "/stretto.embedding.v1.EmbeddingService/RankAudio",
            rank(text="a flute", candidates=[AUDIO, AUDIO_48]),
            (
                (rank(text="a flute"), "candidates"),
                (rank(text=" ", candidates=[AUDIO]), "text"),
                (rank(text="a flute", candidates=[AUDIO, NAN_AUDIO]), "candidates[1].samples"),
                (rank(reference=SLOW_RATE_AUDIO, candidates=[AUDIO]), "reference.sample_rate_hz"),
            ),
        ),
        Rpc(
            "/stretto.embedding.v1.EmbeddingService/TagAudio",
            tag(waveform=AUDIO, tags=["a flute", "a drum"]),
            (
                (tag(tags=["a flute"]), "waveform"),
                (tag(waveform=AUDIO, tags=["a flute", ""]), "tags[1]"),
                (tag(waveform=AUDIO, tags=["x"] * 257), "tags"),
            ),
        ),
        Rpc(
            "/stretto.embedding.v1.EmbeddingService/QuantizeEmbeddings",
            quantize(embeddings=[point]),
            (
                (quantize(), "embeddings"),
                (quantize(embeddings=[point, foreign_point]), "embeddings[1].encoder_id"),
                (quantize(embeddings=[point] * 1025), "embeddings"),
            ),
        ),
        Rpc("/stretto.embedding.v1.EmbeddingService/ListModels", embedding_pb2.ListModelsRequest()),
        Rpc(
            "/stretto.semantic.v1.SemanticService/TokenizeAudio",
            [tokenizer, tokenize(waveform=AUDIO)],
            (
                ([tokenize(waveform=AUDIO)], "config"),
                ([tokenizer, tokenizer], "config"),
                ([tokenizer, tokenize(waveform=NAN_AUDIO)], "waveform.samples"),
                ([tokenizer, tokenize(waveform=AUDIO), tokenize(waveform=AUDIO_48)], "waveform.sample_rate_hz"),
                ([tokenize(config=semantic_pb2.TokenizeConfig(model="nobody"))], "config.model"),
            ),
            streams_requests=True,
        ),
        Rpc(
            "/stretto.semantic.v1.SemanticService/GenerateTokens",
            think(styles=[style], duration_s=0.5),
            (
                (think(), "duration_s"),
                (think(duration_s=601), "duration_s"),
                (think(duration_s=1, styles=[late_style]), "styles[0].start_s"),
                (think(duration_s=1, styles=[foreign_style]), "styles[0].encoder_id"),
                (think(duration_s=1, prompt=matrix), "prompt"),
                (think(duration_s=1, sampling=HOT), "sampling.temperature"),
                (think(duration_s=1, pace=99), "pace"),
                (think(duration_s=1, priority=10), "priority"),
                (think(duration_s=1, model="w2vbert"), "model"),
                (think(duration_s=1, model="nobody"), "model"),
            ),
            think(styles=[style], duration_s=300),
            works_at="/stretto.semantic.v1.SemanticService/GenerateTokens",
        ),
        Rpc("/stretto.semantic.v1.SemanticService/ListModels", semantic_pb2.ListModelsRequest()),
        Rpc(
            "/stretto.transcriber.v1.TranscriberService/TranscribeAudio",
            [notes_wanted, transcribe(waveform=AUDIO)],
            (
                ([transcribe(waveform=AUDIO)], "config"),
                ([notes_wanted, notes_wanted], "config"),
                ([notes_wanted, transcribe(waveform=NAN_AUDIO)], "waveform.samples"),
                ([notes_wanted, transcribe(waveform=AUDIO), transcribe(waveform=AUDIO_48)], "waveform.sample_rate_hz"),
                ([transcribe(config=transcriber_pb2.TranscribeConfig(model="nobody"))], "config.model"),
            ),
            streams_requests=True,
        ),
        Rpc(
            "/stretto.transcriber.v1.TranscriberService/TrackBeats",
            [beats_wanted, track(waveform=AUDIO)],
            (
                ([track(waveform=AUDIO)], "config"),
                ([beats_wanted, beats_wanted], "config"),
                ([beats_wanted, track(waveform=NAN_AUDIO)], "waveform.samples"),
                ([track(config=transcriber_pb2.TrackBeatsConfig(model="nobody"))], "config.model"),
            ),
            streams_requests=True,
        ),
        Rpc(
            "/stretto.transcriber.v1.TranscriberService/EngraveScore",
            engrave(score=PERFORMANCE),
            (
                (engrave(), "score.beat_s"),
                (engrave(score=score_pb2.Score(onset_s=[0.0])), "score.parts"),
                (engrave(score=score_pb2.Score(beat_s=[1.0, 1.0])), "score.beat_s[1]"),
                (engrave(score=PERFORMANCE, title="x" * 201), "title"),
            ),
        ),
        Rpc("/stretto.transcriber.v1.TranscriberService/ListModels", transcriber_pb2.ListModelsRequest()),
        Rpc(
            "/stretto.acoustic.v1.AcousticService/GenerateTokens",
            tokens(duration_s=0.5),
            (
                (tokens(), "duration_s"),
                (tokens(duration_s=1, sampling=HOT), "sampling.temperature"),
                (tokens(duration_s=1, prompt=ragged), "prompt"),
                (tokens(duration_s=1, melody=WRONG_MELODY), "melody"),
                (tokens(duration_s=1, pace=99), "pace"),
                (tokens(duration_s=1, model="nobody"), "model"),
            ),
            tokens(duration_s=30),
        ),
        Rpc(
            "/stretto.acoustic.v1.AcousticService/RefineTokens",
            [refine(config=coarse), source],
            (
                ([source], "config"),
                ([refine(config=coarse), refine(config=coarse)], "config"),
                ([refine(config=longer), source], "source"),
                ([refine(config=coarse), foreign_source], "source.codec_id"),
                ([refine(config=acoustic_pb2.RefineConfig(model="musicgen", duration_s=1))], "config.model"),
                ([refine(config=acoustic_pb2.RefineConfig(model="nobody", duration_s=1))], "config.model"),
                ([refine(config=acoustic_pb2.RefineConfig(model="musiclm_coarse"))], "config.duration_s"),
            ),
            [refine(config=longer), source],  # which waits for more
            streams_requests=True,
            works_at="/stretto.acoustic.v1.AcousticService/RefineTokens",
        ),
        Rpc(
            "/stretto.acoustic.v1.AcousticService/CheckAdmission",
            check(duration_s=0.5),
            (
                (check(), "duration_s"),
                (check(duration_s=1, sampling=HOT), "sampling.temperature"),
                (check(duration_s=1, pace=99), "pace"),
                (check(duration_s=1, priority=10), "priority"),
                (check(duration_s=1, model="nobody"), "model"),
            ),
        ),
        Rpc("/stretto.acoustic.v1.AcousticService/ListModels", acoustic_pb2.ListModelsRequest()),
        *harmony_rpcs.rows(Rpc),
    ]  # fmt: skip


def by_name(models: Mapping[str, ModelInfo]) -> dict[str, Rpc]:
    return {rpc.method.rpartition(".")[2]: rpc for rpc in rpcs(models)}


NEEDED = ("codec", "mulan", "w2vbert")
