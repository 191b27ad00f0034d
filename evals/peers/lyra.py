"""Lyra v2 as a peer: Google's SoundStream for speech, from its published TFLite graphs (Apache-2.0).

16 kHz mono, 50 frames a second of 320 samples; each frame is 64 features, quantized by up to 46 residual codebooks of
16 entries: 16 of them are 3.2 kb/s, 30 are 6, 46 are 9.2. Encoder and decoder keep their streaming state inside.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
HOP_LENGTH = 320
BITS_PER_QUANTIZER = 4
NUM_QUANTIZERS = 46


class Lyra:
    """Encodes and decodes one clip at a time.

    Args:
        folder: Holds `soundstream_encoder.tflite`, `quantizer.tflite` and `lyragan.tflite`.
        num_quantizers: 1 to 46.
    """

    def __init__(self, folder: Path, num_quantizers: int) -> None:
        self._encoder = _interpreter(folder / "soundstream_encoder.tflite")
        self._decoder = _interpreter(folder / "lyragan.tflite")
        quantizer = _interpreter(folder / "quantizer.tflite")
        self._quantize = quantizer.get_signature_runner("encode")
        self._dequantize = quantizer.get_signature_runner("decode")
        self._num_quantizers = num_quantizers

    @property
    def kbps(self) -> float:
        return self._num_quantizers * BITS_PER_QUANTIZER * SAMPLE_RATE_HZ / HOP_LENGTH / 1000

    def code(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode and decode a clip [S] at 16 kHz from a fresh state."""
        self._encoder.reset_all_variables()
        self._decoder.reset_all_variables()
        frames = np.pad(samples, (0, -len(samples) % HOP_LENGTH)).astype(np.float32).reshape(-1, 1, HOP_LENGTH)
        decoded = [_invoke(self._decoder, self._quantized(_invoke(self._encoder, frame))) for frame in frames]
        return np.concatenate([part.reshape(-1) for part in decoded])[: len(samples)]

    def _quantized(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        indices = self._quantize(input_frames=features, num_quantizers=np.int32(self._num_quantizers))["output_0"]
        features = self._dequantize(encoding_indices=indices)["output_0"]
        return features


def _interpreter(path: Path) -> Interpreter:
    made = Interpreter(str(path), num_threads=1)
    made.allocate_tensors()
    return made


def _invoke(graph: Interpreter, value: NDArray[np.float32]) -> NDArray[np.float32]:
    graph.set_tensor(graph.get_input_details()[0]["index"], value)
    graph.invoke()
    result: NDArray[np.float32] = graph.get_tensor(graph.get_output_details()[0]["index"])
    return result
