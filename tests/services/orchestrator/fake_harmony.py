"""A tiny harmony service that speaks the real protos."""

from stretto.common.v1 import harmony_pb2 as common_pb2
from stretto.harmony.v1 import harmony_pb2, harmony_pb2_grpc
from stretto_shared.errors import InvalidInput
from stretto_shared.grpc import convert
from watched import Watched, model_info

ANALYZER = model_info("harmony", "tinyharmony", "6")


def label(start, numeral):
    key = common_pb2.HarmonyKey(tonic_fifths=1)
    return common_pb2.HarmonyLabel(
        start_ticks=start, end_ticks=start + 10, key=key, numeral=numeral, tonicised_key=key, root_fifths=1,
        quality=common_pb2.CHORD_QUALITY_MAJOR, confidence=0.5, measure_number="1", beat=1.0,
    )  # fmt: skip


class FakeHarmony(harmony_pb2_grpc.HarmonyServiceServicer):
    """Two windows, and a chord that lasts from one into the other; what it writes is the numerals."""

    def __init__(self):
        self.labelling, self.writing = Watched(), Watched()
        self.models = ["tinyharmony"]

    async def AnalyzeHarmony(self, request, context):
        async with self.labelling.call(context):
            self.labelling.requests.append(request)
            if not request.score.file.data.startswith(b"<"):
                raise InvalidInput("score.file.data", "expected MusicXML.")
            model = convert.model_info_to_proto(ANALYZER)
            outline = harmony_pb2.AnalysisOutline(model=model, measure_count=2)
            yield harmony_pb2.AnalyzeHarmonyResponse(outline=outline)
            for index, labels in enumerate(([label(0, "I"), label(10, "V")], [label(20, "V"), label(30, "I")])):
                if self.labelling.gate is not None and index:
                    await self.labelling.gate.wait()
                window = harmony_pb2.AnalyzedWindow(first_measure_index=index, measure_count=1, labels=labels)
                yield harmony_pb2.AnalyzeHarmonyResponse(window=window)
            receipt = harmony_pb2.HarmonyReceipt(model=model, window_count=2)
            yield harmony_pb2.AnalyzeHarmonyResponse(receipt=receipt)

    async def WriteHarmony(self, request, context):
        async with self.writing.call(context):
            self.writing.requests.append(request)
            numerals = " ".join(each.numeral for each in request.labels)
            return harmony_pb2.WriteHarmonyResponse(data=request.score.file.data + numerals.encode())

    async def ListModels(self, request, context):
        return harmony_pb2.ListModelsResponse(models=[convert.model_info_to_proto(ANALYZER) for _ in self.models])
