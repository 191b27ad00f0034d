"""The melody encoder: what it hears, and what its codes may not depend on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stretto_embedding.models import melody
from stretto_embedding.models.melody import MelodyEncoder, MelodyEncoderConfig
from stretto_embedding.models.melody_weights import ARCHITECTURE, load_melody_encoder
from stretto_shared import weights

SMALL = MelodyEncoderConfig(num_channels=8, dim=16, embedding_dim=8, num_codebooks=2, cardinality=16)
WEIGHTS = Path(melody.__file__).parents[2] / "weights" / "melody"


def sine(pitch_midi: float, duration_s: float) -> NDArray[np.float32]:
    seconds = np.arange(round(duration_s * 24_000)) / 24_000
    return (0.3 * np.sin(2 * np.pi * 440 * 2 ** ((pitch_midi - 69) / 12) * seconds)).astype(np.float32)


@pytest.fixture
def encoder() -> MelodyEncoder:
    torch.manual_seed(0)
    made = MelodyEncoder(SMALL).eval()
    made.quantizer.initialise(torch.nn.functional.normalize(torch.randn(1, 64, 8), dim=-1))
    return made


@pytest.mark.parametrize("pitch", [48, 60, 69, 84.5])
def test_a_sine_is_loudest_at_its_pitch(pitch: float) -> None:
    spectrum = melody.pitch_spectrum(torch.from_numpy(sine(pitch, 1.0))[None])
    assert spectrum.shape == (1, 16, 144)
    assert spectrum[0, 4:12].argmax(1).tolist() == [round(2 * (pitch - 36))] * 8
    assert spectrum[0, 4:12].amax(1).tolist() == pytest.approx([1.0] * 8, abs=0.01)


def test_a_frame_is_centred_on_its_hop() -> None:
    audio = np.zeros(48_000, np.float32)
    audio[20 * 1500 + 750] = 1.0
    assert int(melody.pitch_spectrum(torch.from_numpy(audio)[None])[0].sum(1).argmax()) == 20


def test_silence_has_no_pitch() -> None:
    noise = np.random.default_rng(0).standard_normal(24_000).astype(np.float32) * 1e-6
    assert float(melody.pitch_spectrum(torch.from_numpy(noise)[None]).max()) < 1 / 255


@pytest.mark.parametrize("shape", [(24_000,), (1, 0), (1, 1501)])
def test_audio_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiple of 1500"):
        melody.pitch_spectrum(torch.zeros(shape))


def test_a_harmonic_stack_brings_partials_to_their_fundamental() -> None:
    spectrum = torch.zeros(1, 1, 144)
    spectrum[0, 0, [40, 64, 78, 88]] = torch.tensor([1.0, 2.0, 3.0, 4.0])  # partials 1 to 4 of bin 40
    assert melody.harmonic_stack(spectrum)[0, :, 0, 40].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 0.0]


def test_a_shift_moves_silence_in() -> None:
    spectrum = torch.arange(1.0, 5.0)[None]
    assert melody.shift_pitch(spectrum, 1).tolist() == [[0, 1, 2, 3]]
    assert melody.shift_pitch(spectrum, -2).tolist() == [[3, 4, 0, 0]]
    assert melody.shift_pitch(spectrum, 0).tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(("duration_s", "columns"), [(0.1, 1), (1.0, 1), (1.01, 2), (10.24, 11)])
def test_there_is_a_column_for_each_second_begun(encoder: MelodyEncoder, duration_s: float, columns: int) -> None:
    samples = sine(60, duration_s)
    assert melody.num_columns(len(samples)) == columns
    codes = encoder.encode(samples)
    assert codes.shape == (2, columns) and codes.dtype == np.int64
    assert np.allclose(np.linalg.norm(encoder.embed(samples), axis=1), 1.0, atol=1e-5)


def test_codes_do_not_depend_on_loudness(encoder: MelodyEncoder) -> None:
    tune = np.concatenate([sine(pitch, 0.5) for pitch in (60, 64, 67, 72, 71, 67)])
    np.testing.assert_allclose(encoder.embed(tune), encoder.embed(tune * np.float32(0.05)), atol=1e-4)


def test_codes_do_not_depend_on_the_batch(encoder: MelodyEncoder) -> None:
    spectra = torch.rand(3, 48, 144)
    with torch.inference_mode():
        together = encoder(spectra).embeddings
        alone = torch.cat([encoder(row[None]).embeddings for row in spectra])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_column_hears_its_own_second_and_none_far_away(encoder: MelodyEncoder) -> None:
    tune = np.concatenate([sine(pitch, 1.0) for pitch in (60, 62, 64, 65, 67, 69, 71, 72)])
    changed = tune.copy()
    changed[4 * 24_000 : 5 * 24_000] = sine(80, 1.0)
    moved = np.abs(encoder.embed(tune) - encoder.embed(changed)).max(1)
    assert moved[4] > 1e-3
    assert moved[[0, 1, 7]].max() < 1e-6


def test_an_export_loads_as_it_was(encoder: MelodyEncoder, tmp_path: Path) -> None:
    weights.write(
        tmp_path / "melody", encoder.state_dict(), name="melody", architecture=ARCHITECTURE,
        config=vars(SMALL), licence="CC0-1.0", score="", training={},
    )  # fmt: skip
    samples = sine(64, 2.5)
    loaded = load_melody_encoder(tmp_path / "melody")
    assert not loaded.training
    assert np.array_equal(loaded.encode(samples), encoder.encode(samples))


def test_vectors_that_are_not_finite_are_the_encoders_fault(encoder: MelodyEncoder) -> None:
    with torch.no_grad():
        encoder.summarise.bias.fill_(torch.nan)
    with pytest.raises(RuntimeError, match="not finite"):
        encoder.encode(sine(60, 1.0))
