"""Onsets and Frames: shapes, the published layout, what gradients reach, and what a front end hears."""

import dataclasses

import numpy as np
import pytest
import torch
from stretto_transcriber.models.onsets_frames import (
    OnsetsFrames,
    OnsetsFramesConfig,
    build_onsets_frames,
    from_published,
    hear_clip,
    maestro_config,
    maps_config,
)
from stretto_transcriber.models.onsets_frames.config import LOWEST_PITCH
from stretto_transcriber.models.onsets_frames.harmonic import HarmonicBranch
from stretto_transcriber.models.onsets_frames.spectrum import (
    BINS_PER_SEMITONE,
    NUM_SEMITONES,
    HarmonicSpectrum,
    third_tone_bands,
)
from torch import nn
from torch.nn import functional as F

HARMONIC = OnsetsFramesConfig(
    stem_channels=4, fold_channels=8, branch_channels=8, lstm_size=6, combined_lstm_size=4, window_frames=50,
    context_frames=20,
)  # fmt: skip
PAPER = dataclasses.replace(
    maestro_config(), conv_channels=2, fc_size=12, lstm_size=5, combined_lstm_size=4, window_frames=30, context_frames=8
)
FIRST_PAPER = dataclasses.replace(PAPER, has_offset_head=False)
KEYED, KEYED_PAPER = (dataclasses.replace(config, has_key_head=True) for config in (HARMONIC, PAPER))
CONFIGS = [HARMONIC, PAPER, FIRST_PAPER, KEYED, KEYED_PAPER]
NAMES = ["harmonic", "paper", "first paper", "harmonic with keys", "paper with keys"]


@pytest.fixture(params=CONFIGS, ids=NAMES)
def model(request):
    torch.manual_seed(0)
    made = OnsetsFrames(request.param).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.5)
    return made


def noise(config, count=1, frames=None, seed=1):
    frames = frames or config.window_frames + 2 * config.context_frames
    return torch.randn(count, frames * config.hop_length, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@torch.inference_mode()
def test_a_clip_is_heard_by_windows_that_lie_side_by_side(model, batch_size):
    config = model.config
    hop, window, context = config.hop_length, config.window_frames, config.context_frames
    num_frames = 2 * window + 7
    samples = noise(config, frames=num_frames)[0, :-5]  # the last window and the last frame are not whole
    heard = hear_clip(model, samples.numpy(), batch_size)

    padded = F.pad(samples, (context * hop, (window + context) * hop))
    starts = range(0, num_frames * hop, window * hop)
    windows = torch.stack([padded[start : start + (window + 2 * context) * hop] for start in starts])
    alone = torch.cat([model.window_heads(one[None]).stacked()[0] for one in windows])[:num_frames]
    assert heard.shape == (num_frames, 88 * config.num_heads) and len(windows) == 3
    assert np.allclose(heard, alone.numpy(), atol=0 if batch_size == 1 else 1e-5)
    assert hear_clip(model, np.zeros(0, np.float32), batch_size).shape == (0, 88 * config.num_heads)


@torch.inference_mode()
def test_heads_are_probabilities_of_88_keys_in_every_frame(model):
    heads = model(model.features(noise(model.config, 2, frames=37)))

    for head in (heads.onset, heads.frame, heads.velocity, heads.offset):
        if head is None:
            assert not model.config.has_offset_head
            continue
        assert head.shape == (2, 37, 88)
        assert 0 <= head.min() < head.max() <= 1
    assert (heads.offset is not None) == model.config.has_offset_head
    assert (heads.key is not None) == model.config.has_key_head
    assert heads.stacked().shape == (2, 37, 88 * model.config.num_heads)
    if heads.key is not None:
        assert torch.equal(heads.stacked()[..., 352:], heads.key) and not torch.equal(heads.key, heads.frame)
        assert torch.equal(heads.inner(3, 5).stacked(), heads.stacked()[:, 3:8])


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
@torch.inference_mode()
def test_an_untrained_network_hears_next_to_nothing(config):
    torch.manual_seed(0)
    model = OnsetsFrames(config).eval()
    heads = model(model.features(noise(config, frames=20)))

    for head in (heads.onset, heads.frame, heads.offset, heads.key):
        assert head is None or head.mean() < 0.05


@pytest.mark.parametrize("shape", [(1,), (1, 0), (1, 1001), (1, 2, 1024)])
def test_audio_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="audio: expected"):
        OnsetsFrames(HARMONIC).features(torch.zeros(shape))


def test_a_window_of_another_length_is_refused():
    with pytest.raises(ValueError, match="expected windows"):
        OnsetsFrames(HARMONIC).window_heads(noise(HARMONIC, frames=50))


@torch.inference_mode()
def test_a_window_is_the_middle_of_what_it_hears(model):
    config = model.config
    audio = noise(config, 2)
    whole = model(model.features(audio))
    inner = model.window_heads(audio)

    first = config.context_frames
    assert torch.equal(inner.onset, whole.onset[:, first : first + config.window_frames])
    assert torch.equal(inner.stacked(), whole.stacked()[:, first : first + config.window_frames])


@torch.inference_mode()
def test_a_batch_gives_what_its_windows_give_alone(model):
    audio = noise(model.config, 3)
    together = model.window_heads(audio).stacked()
    alone = torch.cat([model.window_heads(row[None]).stacked() for row in audio])

    assert torch.allclose(together, alone, atol=1e-5)


@torch.inference_mode()
def test_the_same_audio_gives_the_same_bytes(model):
    audio = noise(model.config)

    assert torch.equal(model.window_heads(audio).stacked(), model.window_heads(audio.clone()).stacked())


def test_the_published_networks_have_the_published_sizes():
    def size(config):
        return sum(parameter.numel() for parameter in OnsetsFrames(config).parameters()) / 1e6

    assert size(maestro_config()) == pytest.approx(26.49, abs=0.01)
    assert not any(name.startswith("network.offset") for name in OnsetsFrames(maps_config()).state_dict())


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_frames_teach_neither_onsets_nor_offsets(config):
    model = OnsetsFrames(config)
    heads = model.logits(model.features(noise(config, frames=20)))
    heads.frame.sum().backward()

    touched = {
        name for name, value in model.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0
    }
    own = {"harmonic": ("onset_branch", "onset_head", "offset_head"), "mel": ("onset_stack", "offset_stack")}
    assert not [name for name in touched if any(part in name for part in own[config.front])]
    assert any("combined" in name for name in touched)


@torch.inference_mode()
def test_frames_hear_of_the_onsets(model):
    features = model.features(noise(model.config, frames=20))
    before = model(features)
    network = model.network
    last = network.onset_head if model.config.front == "harmonic" else network.onset_stack[-1]
    last.bias += 5.0
    after = model(features)

    assert not torch.allclose(before.frame, after.frame)
    if before.offset is not None:
        assert torch.equal(before.offset, after.offset)


def reference_stack(state, prefix, mel):
    """The convolution stack of jongwook/onsets-and-frames, written from its layout."""

    def conv(x, number):
        x = F.conv2d(x, state[f"{prefix}cnn.{number}.weight"], state[f"{prefix}cnn.{number}.bias"], padding=1)
        norm = f"{prefix}cnn.{number + 1}."
        mean, variance = state[f"{norm}running_mean"], state[f"{norm}running_var"]
        return F.relu(F.batch_norm(x, mean, variance, state[f"{norm}weight"], state[f"{norm}bias"]))

    x = conv(conv(mel[:, None], 0), 3)
    x = F.max_pool2d(conv(F.max_pool2d(x, (1, 2)), 8), (1, 2))
    x = x.transpose(1, 2).flatten(-2)
    return x @ state[f"{prefix}fc.0.weight"].T + state[f"{prefix}fc.0.bias"]


def reference_lstm(state, prefix, x):
    weight = state[f"{prefix}rnn.weight_ih_l0"]
    lstm = nn.LSTM(weight.shape[1], weight.shape[0] // 4, batch_first=True, bidirectional=True)
    lstm.load_state_dict(
        {name.removeprefix(f"{prefix}rnn."): v for name, v in state.items() if f"{prefix}rnn." in name}
    )
    return lstm(x)[0]


def reference_heads(state, mel):
    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def events(name):
        x = reference_lstm(state, f"{name}.1.", reference_stack(state, f"{name}.0.", mel))
        return torch.sigmoid(linear(x, f"{name}.2"))

    activation = torch.sigmoid(linear(reference_stack(state, "frame_stack.0.", mel), "frame_stack.1"))
    onset, offset = events("onset_stack"), events("offset_stack")
    combined = reference_lstm(state, "combined_stack.0.", torch.cat([onset, offset, activation], -1))
    frame = torch.sigmoid(linear(combined, "combined_stack.1"))
    return onset, offset, frame, linear(reference_stack(state, "velocity_stack.0.", mel), "velocity_stack.1")


def published_state(complexity=3, bands=229):
    """Random weights under the published keys, `model_complexity` being `complexity`."""
    size = 16 * complexity
    state = {}

    def stack(name):
        convs = {0: (complexity, 1), 3: (complexity, complexity), 8: (2 * complexity, complexity)}
        for number, (wide, narrow) in convs.items():
            state[f"{name}.0.cnn.{number}.weight"] = torch.randn(wide, narrow, 3, 3) * 0.3
            state[f"{name}.0.cnn.{number}.bias"] = torch.randn(wide)
            norm = f"{name}.0.cnn.{number + 1}"
            state.update({f"{norm}.weight": torch.rand(wide) + 0.5, f"{norm}.bias": torch.randn(wide)})
            state.update({f"{norm}.running_mean": torch.randn(wide), f"{norm}.running_var": torch.rand(wide) + 0.5})
            state[f"{norm}.num_batches_tracked"] = torch.tensor(7)
        state[f"{name}.0.fc.0.weight"] = torch.randn(size, 2 * complexity * (bands // 4)) * 0.05
        state[f"{name}.0.fc.0.bias"] = torch.randn(size)

    def lstm(name, inputs):
        made = nn.LSTM(inputs, size // 2, bidirectional=True)
        state.update({f"{name}.rnn.{key}": value.detach() for key, value in made.state_dict().items()})

    def head(name):
        state.update({f"{name}.weight": torch.randn(88, size) * 0.2, f"{name}.bias": torch.randn(88)})

    for name in ("onset_stack", "offset_stack"):
        stack(name)
        lstm(f"{name}.1", size)
        head(f"{name}.2")
    for name in ("frame_stack", "velocity_stack"):
        stack(name)
        head(f"{name}.1")
    lstm("combined_stack.0", 3 * 88)
    head("combined_stack.1")
    return state


@torch.inference_mode()
def test_a_published_state_dict_gives_what_its_own_program_gives():
    torch.manual_seed(3)
    state = published_state()
    model = from_published(state)
    mel = torch.randn(2, 21, 229)
    heads = model.logits(mel)
    onset, offset, frame, velocity = reference_heads(state, mel)

    assert torch.allclose(torch.sigmoid(heads.onset), onset, atol=1e-5)
    assert torch.allclose(torch.sigmoid(heads.offset), offset, atol=1e-5)
    assert torch.allclose(torch.sigmoid(heads.frame), frame, atol=1e-5)
    assert torch.allclose(heads.velocity, velocity, atol=1e-5)


def test_another_networks_state_dict_is_refused():
    with pytest.raises(ValueError, match="another network's"):
        from_published({"note_model.conv.weight": torch.zeros(1)})
    state = published_state()
    state["combined_stack.0.rnn.weight_ih_l0"] = torch.zeros(96, 100)
    with pytest.raises(ValueError, match="88 keys"):
        from_published(state)


def test_a_checkpoint_is_built_from_half_precision_and_nothing_may_lack():
    model = OnsetsFrames(HARMONIC)
    tensors = {name: value.half() for name, value in model.state_dict().items() if value.dtype.is_floating_point}
    built = build_onsets_frames(dataclasses.asdict(HARMONIC), tensors)

    assert not built.training
    assert all(value.dtype == torch.float32 for value in built.parameters())
    name = "network.onset_head.weight"
    assert torch.equal(built.state_dict()[name], tensors[name].float())
    with pytest.raises(ValueError, match="1 missing"):
        build_onsets_frames(dataclasses.asdict(HARMONIC), {k: v for k, v in tensors.items() if k != name})
    with pytest.raises(ValueError, match="expected shape"):
        build_onsets_frames(dataclasses.asdict(HARMONIC), tensors | {name: torch.zeros(1, 2)})


@pytest.mark.parametrize("pitch", [33, 60, 96])
def test_a_tone_lies_at_its_semitone(pitch):
    spectrum = HarmonicSpectrum(16_000, 320, 0.5)
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * 2 ** ((pitch - 69) / 12) * torch.arange(16_000) / 16_000)
    long, _ = spectrum(tone[None])[0, 25].unflatten(0, (2, NUM_SEMITONES, BINS_PER_SEMITONE))

    place = int(long.flatten().argmax())
    assert place // BINS_PER_SEMITONE == pitch - LOWEST_PITCH
    if pitch > 40:  # below, the window is too short for thirds of semitones
        assert place % BINS_PER_SEMITONE == 1


@pytest.mark.parametrize("config", [HARMONIC, PAPER], ids=["middle of its hop", "first sample of its hop"])
def test_a_click_lies_in_the_frame_that_is_centred_on_it(config):
    audio = torch.zeros(1, 40 * config.hop_length)
    audio[0, round((20 + config.frame_centre) * config.hop_length)] = 1.0
    features = OnsetsFrames(config).features(audio)[0]  # [T, F]
    loudness = features[:, -40:].exp().sum(1)

    assert int(loudness.argmax()) == 20
    assert torch.allclose(loudness[19], loudness[21], rtol=0.05)


@torch.inference_mode()
def test_a_pitch_is_told_by_its_own_harmonics():
    torch.manual_seed(0)
    branch = HarmonicBranch(2, 4, 3).eval()
    branch.harmonics[0].weight.abs_()
    semitones = torch.zeros(1, 2, 1, NUM_SEMITONES)
    semitones[..., 50] = 1.0
    reached = []
    branch.near.register_forward_pre_hook(lambda _, inputs: reached.append(inputs[0].sum((0, 1, 2))))
    branch(semitones)

    bare = branch.harmonics(torch.zeros(1, 18, 1, 1)).relu().sum()
    lit = np.nonzero((reached[0] - bare).abs().numpy() > 1e-6)[0].tolist()
    assert lit == sorted(50 - shift for shift in (-12, 0, 12, 19, 24, 28, 31, 34, 36))


@torch.inference_mode()
def test_a_trained_network_is_the_one_that_was_trained():
    torch.manual_seed(0)
    branch = OnsetsFrames(HARMONIC).network.onset_branch
    semitones = torch.randn(2, 8, 30, 99)
    for _ in range(5):
        branch(semitones * 2 + 1)  # norms learn a mean and a variance
    branch.eval()
    x = torch.randn(2, 8, 30, 88)

    assert torch.allclose(branch._at_harmonics_at_once(semitones), branch._at_harmonics(semitones), atol=1e-5)
    for conv in (branch.near, branch.octaves, branch.later):
        assert torch.allclose(conv(x), conv[1](conv[0](x)), atol=1e-5)
        assert not torch.allclose(conv(x), conv[0](x), atol=1e-2)


@pytest.mark.parametrize("config", [KEYED, KEYED_PAPER], ids=["harmonic", "paper"])
def test_recurrent_layers_are_in_full_precision_under_autocast(config):
    model = OnsetsFrames(config)
    given = []
    for module in model.modules():
        if isinstance(module, torch.nn.LSTM):
            module.register_forward_hook(lambda _, inputs, outputs: given.extend([inputs[0], outputs[0]]))
    with torch.autocast("cpu", torch.bfloat16):
        heads = model.logits(model.features(noise(config, frames=20)))

    assert len(given) >= 6 and {tensor.dtype for tensor in given} == {torch.float32}
    assert heads.onset.dtype == torch.bfloat16


@pytest.mark.parametrize("rate_hz", [16_000, 8_000])
def test_bands_are_sums_over_all_lines(rate_hz: int) -> None:
    audio = torch.randn(2, 10 * 320, generator=torch.Generator().manual_seed(0))
    heard, wanted = HarmonicSpectrum(rate_hz, 320, 0.5)(audio), []
    for length in (4096, 1024):
        window = torch.hann_window(length, dtype=torch.float64) * (4.0 / length)
        before = length // 2 - 160
        padded = torch.nn.functional.pad(audio.double(), (before, length - 320 - before))
        power = torch.fft.rfft(padded.unfold(1, length, 320) * window).abs().square()
        wanted.append(power @ third_tone_bands(rate_hz, length).double())
    exact = (torch.log(torch.cat(wanted, -1) + 1e-8) + 11.0) / 4.0
    torch.testing.assert_close(heard.double(), exact, atol=1e-4, rtol=0)
    assert exact.std() > 0.1
