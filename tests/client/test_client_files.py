"""Audio, token and picture files: what is written is read back, and nothing is ever half there."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file
from stretto_client import (
    AudioFileWriter,
    InvalidInput,
    TokenMatrix,
    Waveform,
    audio_files,
    open_audio,
    read_audio,
    read_tokens,
    write_audio,
)
from stretto_client.audio_files import within_full_scale
from stretto_client.picture import draw_spectrogram, power_spectrogram_db
from stretto_client.token_files import FORMAT, write_tokens


def tone(duration_s: float, frequency_hz: float = 440.0, sample_rate_hz: int = 24_000) -> Waveform:
    times_s = np.arange(int(duration_s * sample_rate_hz)) / sample_rate_hz
    return Waveform(0.5 * np.sin(2 * np.pi * frequency_hz * times_s), sample_rate_hz)


def test_a_file_is_read_in_blocks_that_join_up_and_says_how_long_it_is(tmp_path: Path) -> None:
    write_audio(tmp_path / "x.wav", tone(1.1))
    with open_audio(tmp_path / "x.wav") as file:
        assert (file.promised_s, file.sample_rate_hz, file.num_channels) == (1.1, 24_000, 1)
        blocks = list(file.waveforms(0.25))
    assert [block.num_samples for block in blocks] == [6000, 6000, 6000, 6000, 2400]
    whole = np.concatenate([block.samples for block in blocks], axis=1)
    assert np.array_equal(whole, read_audio(tmp_path / "x.wav").samples)


@pytest.mark.parametrize(("suffix", "tolerance"), [(".wav", 1e-4), (".flac", 1e-6), (".ogg", 0.1)])
def test_an_audio_file_gives_back_what_was_written(tmp_path: Path, suffix: str, tolerance: float) -> None:
    left, right = tone(1.0).samples[0], tone(1.0, 220.0).samples[0]
    stereo = Waveform(np.stack([left, right]), 24_000)
    write_audio(tmp_path / f"x{suffix}", stereo)
    back = read_audio(tmp_path / f"x{suffix}")
    assert (back.sample_rate_hz, back.samples.shape) == (24_000, stereo.samples.shape)
    assert np.abs(back.samples - stereo.samples).mean() < tolerance


def test_a_minute_of_vorbis_in_one_waveform_is_written_in_blocks(tmp_path: Path) -> None:
    write_audio(tmp_path / "long.ogg", tone(60.0))
    assert read_audio(tmp_path / "long.ogg").duration_s == pytest.approx(60.0)


def test_louder_than_full_scale_is_clipped_and_never_wraps(tmp_path: Path) -> None:
    write_audio(tmp_path / "loud.wav", Waveform(np.full(1000, 1.5), 24_000))
    assert read_audio(tmp_path / "loud.wav").samples.min() > 0.99


def test_a_failure_while_writing_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "music.wav"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), AudioFileWriter(path) as writer:
        writer.write(tone(0.1))
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_audio_at_all_is_an_error_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="got none"), AudioFileWriter(tmp_path / "x.wav"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.mp9", "x", "missing-folder/x.wav"])
def test_a_file_that_cannot_be_written_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="path"):
        write_audio(tmp_path / name, tone(0.1))


@pytest.mark.parametrize("content", [None, b"", b"not audio at all"])
def test_what_is_not_audio_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"x\.wav"):
        read_audio(path)


def test_raw_samples_are_refused_for_they_do_not_say_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.RAW"
    path.write_bytes(bytes(2000))
    with pytest.raises(InvalidInput, match=r"says its rate and channels, got .*x\.RAW"):
        read_audio(path)


def test_six_channels_are_refused_by_name(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "surround.wav", np.zeros((100, 6)), 24_000)
    with pytest.raises(InvalidInput, match=r"1 or 2 channels, got 6 in .*surround\.wav"):
        read_audio(tmp_path / "surround.wav")


def test_a_header_that_promises_more_than_any_memory_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.flac"
    write_audio(path, tone(0.5))
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the number of samples: the last 36 bits of bytes 18 to 25
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    assert soundfile.info(path).frames == 2**36 - 1
    with pytest.raises(InvalidInput, match=r"x\.flac.* cannot be read"):
        read_audio(path)


def test_a_long_recording_is_read_in_blocks_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(tmp_path / "x.ogg", tone(3.0))
    whole = read_audio(tmp_path / "x.ogg")
    monkeypatch.setattr(audio_files, "MAX_SAMPLES_PER_READ", 10_007)
    assert np.array_equal(read_audio(tmp_path / "x.ogg").samples, whole.samples)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems know only names in UTF-8")
def test_a_name_that_is_not_utf8_is_a_name_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    write_audio(path, tone(0.5))
    assert read_audio(path).duration_s == 0.5
    draw_spectrogram(path.with_suffix(".png"), tone(0.5), str(path))
    assert path.with_suffix(".png").exists()


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """No file may grow beyond this, and who tries hears the same error as of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_full_disk_is_an_error_of_the_system_and_leaves_no_file(tmp_path: Path, suffix: str) -> None:
    noise = Waveform(np.random.default_rng(0).uniform(-0.5, 0.5, 240_000), 24_000)
    with full_disk(100_000), pytest.raises(OSError, match=rf"x\{suffix}.* cannot be written"):
        write_audio(tmp_path / f"x{suffix}", noise)
    assert list(tmp_path.iterdir()) == []


def test_a_file_keeps_the_rate_and_the_channels_that_it_began_with(tmp_path: Path) -> None:
    stereo = Waveform(np.zeros((2, 100)), 24_000)
    for other in (stereo, tone(0.1, sample_rate_hz=48_000)):
        with pytest.raises(InvalidInput, match="1 channels at 24000 Hz"), AudioFileWriter(tmp_path / "x.wav") as writer:
            writer.write(tone(0.1))
            writer.write(other)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scales", [(), (0.5, 0.25)])
def test_a_tokens_file_gives_back_what_was_written(tmp_path: Path, scales: tuple[float, ...]) -> None:
    tokens = TokenMatrix(np.arange(12).reshape(3, 4), 50.0, "framecodec@" + "ab" * 6, scales)
    write_tokens(tmp_path / "x.tokens", tokens, 1900)
    back, num_samples = read_tokens(tmp_path / "x.tokens")
    assert np.array_equal(back.codes, tokens.codes)
    assert (back.frame_rate_hz, back.codec_id, back.chunk_scales) == (50.0, tokens.codec_id, scales)
    assert num_samples == 1900


def test_the_same_tokens_are_always_the_same_file(tmp_path: Path) -> None:
    tokens = TokenMatrix(np.arange(12).reshape(3, 4), 50.0, "framecodec@" + "ab" * 6, (0.5,))
    for number in range(5):
        write_tokens(tmp_path / f"{number}.tokens", tokens, 1900)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_what_is_not_a_tokens_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.tokens").write_bytes(b"\x00" * 100)
    save_file({"codes": np.zeros((1, 1), np.int32)}, tmp_path / "other.tokens", {"else": "{}"})
    save_file({"codes": np.zeros((1, 1), np.int32)}, tmp_path / "bare.tokens", {FORMAT: "{}"})
    for name in ("noise", "other", "bare", "missing"):
        with pytest.raises(InvalidInput, match=name):
            read_tokens(tmp_path / f"{name}.tokens")


def test_the_spectrogram_is_loudest_where_the_tone_is() -> None:
    decibels = power_spectrogram_db(tone(1.0, 1500.0))
    assert decibels.max() == 0
    assert decibels.min() >= -80
    loudest_hz = np.argmax(decibels.mean(axis=1)) * 24_000 / 2048
    assert loudest_hz == pytest.approx(1500.0, abs=24_000 / 2048)


def test_a_picture_is_a_real_image_with_something_in_it(tmp_path: Path) -> None:
    draw_spectrogram(tmp_path / "x.png", tone(1.0), "a tone")
    draw_spectrogram(tmp_path / "y.png", tone(1.0, 3000.0), "a tone")
    first, second = (tmp_path / "x.png").read_bytes(), (tmp_path / "y.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    assert len(first) > 5_000
    assert first != second


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_title_is_text_and_no_formula(tmp_path: Path, suffix: str) -> None:
    draw_spectrogram(tmp_path / f"x{suffix}", tone(0.1), r"cost $\foo$ bar")
    assert (tmp_path / f"x{suffix}").stat().st_size > 1000


def test_a_picture_needs_audio_and_a_known_suffix(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"\.png"):
        draw_spectrogram(tmp_path / "x.gif", tone(0.1), "")
    with pytest.raises(InvalidInput, match="got none"):
        draw_spectrogram(tmp_path / "x.png", Waveform(np.zeros((1, 0)), 24_000), "")


def test_loud_music_is_turned_down_as_a_whole_and_quiet_music_is_left_alone() -> None:
    loud, gain_db = within_full_scale(Waveform(np.array([0.5, -1.98]), 24_000))
    assert np.abs(loud.samples).max() == pytest.approx(0.99, abs=1e-4)
    assert loud.samples[0, 0] == pytest.approx(0.25, abs=1e-4)
    assert gain_db == pytest.approx(-6.02, abs=0.01)
    quiet = Waveform(np.array([0.5, -0.9]), 24_000)
    assert within_full_scale(quiet) == (quiet, 0.0)
