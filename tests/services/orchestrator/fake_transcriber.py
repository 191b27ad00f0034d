"""A tiny transcriber that speaks the real protos."""

from stretto.transcriber.v1 import transcriber_pb2, transcriber_pb2_grpc
from stretto_shared.errors import InvalidInput, NotFound
from stretto_shared.grpc import convert
from stretto_shared.grpc.convert_score import score_from_proto, score_to_proto
from stretto_shared.score import Part, Score
from watched import Watched, model_info

NOTES, BEATS = model_info("transcriber", "tinynotes", "4"), model_info("transcriber", "tinybeats", "5")


class FakeTranscriber(transcriber_pb2_grpc.TranscriberServiceServicer):
    """A note for each second of audio, as loud as its first sample says; a beat every half second."""

    def __init__(self):
        self.noting, self.tracking, self.engraving = Watched(), Watched(), Watched()
        self.num_beats = None  # as many as there is audio for

    async def TranscribeAudio(self, requests, context):
        async with self.noting.call(context):
            config = (await anext(aiter(requests))).config
            if config.model == "nobody":
                raise NotFound("config.model", "expected tinynotes, got 'nobody'. Choose one.")
            by_key = config.ends == transcriber_pb2.NOTE_ENDS_KEY
            if by_key and config.model == "deaf":
                raise InvalidInput("config.ends", "expected what deaf hears, sounds, got keys. Ask for these.")
            second = 0
            lose_after = self.noting.lose_after.pop(0) if self.noting.lose_after else None
            info = self.noting.info or NOTES
            async for request in requests:
                waveform = convert.waveform_from_proto(request.waveform)
                self.noting.requests.append(waveform)
                if self.noting.gate is not None:
                    await self.noting.gate.wait()
                velocity = [1 + int(abs(waveform.samples[0, 0]) * 100)]
                note = Score(
                    [float(second)], [0.25 if by_key else 0.5], [60 + second % 12], velocity, [0], (Part("piano"),)
                )
                second += 1
                yield transcriber_pb2.TranscribeAudioResponse(
                    notes=score_to_proto(note),
                    complete_s=second,
                    model=convert.model_info_to_proto(info) if second == 1 else None,
                )
                lose_after = self.noting.lose(lose_after)
            if second == 0:
                raise InvalidInput("waveform", "expected at least one message with audio after config, got none.")

    async def TrackBeats(self, requests, context):
        async with self.tracking.call(context):
            if (await anext(aiter(requests))).config.model == "nobody":
                raise NotFound("config.model", "expected tinybeats, got 'nobody'. Choose one.")
            num_seconds = 0.0
            lose_after = self.tracking.lose_after.pop(0) if self.tracking.lose_after else None
            async for request in requests:
                waveform = convert.waveform_from_proto(request.waveform)
                self.tracking.requests.append(waveform)
                num_seconds += waveform.duration_s
                if self.tracking.gate is not None:
                    await self.tracking.gate.wait()
                lose_after = self.tracking.lose(lose_after)
            num_beats = round(2 * num_seconds) if self.num_beats is None else self.num_beats
            return transcriber_pb2.TrackBeatsResponse(
                beat_s=[index / 2 for index in range(num_beats)],
                beat_in_bar=[index % 3 + 1 for index in range(num_beats)],
                tempo_bpm=[120.0] * num_beats,
                time_signature_numerator=3,
                onset_s=[0.25],
                model=convert.model_info_to_proto(BEATS),
            )

    async def EngraveScore(self, request, context):
        async with self.engraving.call(context):
            self.engraving.requests.append(request)
            score = score_from_proto(request.score)
            return transcriber_pb2.EngraveScoreResponse(
                score=score_to_proto(score), musicxml=f"<{request.title}/>".encode()
            )

    async def ListModels(self, request, context):
        models = [convert.model_info_to_proto(each) for each in (NOTES, BEATS)]
        return transcriber_pb2.ListModelsResponse(models=models)
