"""MuLan's recipe end to end on a corpus made in seconds, its loss, and what it does to spectrograms and tags."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch.nn import functional as F

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "services/embedding/recipes"
sys.path.append(str(RECIPES))

import train_mulan  # noqa: E402  programs beside the packages
from fit_codes import load_mulan  # noqa: E402
from joint_features import SILENCE, JointFeatures, perturbed  # noqa: E402
from stretto_embedding.models.mulan import MuLan, MuLanConfig  # noqa: E402
from stretto_embedding.models.mulan.audio_tower import SILENCE as TOWER_SILENCE  # noqa: E402
from stretto_shared.training.corpus.debug import build_debug_corpus  # noqa: E402
from stretto_shared.training.corpus.records import ClipRecord  # noqa: E402
from tag_recordings import FAMILIES, GENRES, MOODS, PROGRAMS, instruments_heard, tagged  # noqa: E402
from train_mulan import contrastive_loss, retrieval  # noqa: E402
from train_text_tower import code_loss  # noqa: E402


def run(script: Path, *arguments: object) -> None:
    subprocess.run([sys.executable, str(script), *map(str, arguments)], check=True, timeout=900)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus, out = tmp_path_factory.mktemp("corpus"), tmp_path_factory.mktemp("features")
    build_debug_corpus(corpus, num_clips=16, seed=0)
    run(
        ROOT / "services/acoustic/recipes/prepare_features.py", "--corpus", corpus, "--out", out, "--only", "conditions"
    )
    run(RECIPES / "prepare_mel.py", "--corpus", corpus, "--out", out)
    return out


@pytest.fixture(scope="module")
def trained(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mulan")
    run(RECIPES / "train_mulan.py", "--config", RECIPES / "debug.toml", "--features", features, "--run", folder)
    return folder


@pytest.fixture(scope="module")
def finished(features: Path, trained: Path) -> Path:
    exported, out = trained / "export" / "mulan-debug", trained / "finished"
    run(RECIPES / "fit_codes.py", "--mulan", exported, "--features", features, "--out", out)
    return out


def test_the_recipe_learns_and_exports_and_writes_styles(features: Path, trained: Path, finished: Path) -> None:
    records = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[-1] < losses[0] - 0.3
    model, resolved = load_mulan(finished)
    mels = np.load(features / "mel_train_0000.npy").astype(np.float32)
    styles = np.load(features / "style_train_0000.npy")
    assert styles.dtype == np.float16 and resolved.config["training"]["clips_for_codes"] == len(mels)
    with torch.inference_mode():
        points, raw = model.embed_audio(torch.from_numpy(mels)), model.raw_audio(torch.from_numpy(mels))
        distances = (model.dequantize(model.quantize(points)) - points).norm(dim=1)
    np.testing.assert_allclose(styles, points.numpy(), atol=1e-3)
    torch.testing.assert_close(raw.mean(0), model.audio_mean, atol=2e-3, rtol=0)
    assert float(distances.mean()) < 0.7  # of unit vectors; two at random are 1.4 apart
    (features / "style_train_0000.npy").unlink()
    run(RECIPES / "fit_codes.py", "--mulan", finished, "--features", features, "--keep-codes")
    np.testing.assert_array_equal(np.load(features / "style_train_0000.npy"), styles)
    again_from = ("--config", RECIPES / "debug.toml", "--features", features, "--run", trained)
    run(RECIPES / "train_mulan.py", *again_from)  # goes on where it was, which is the end
    again = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert again[len(records)]["step"] == records[-1]["step"] + 1


def test_the_text_tower_learns_on_and_nothing_that_recordings_need_changes(
    features: Path, finished: Path, tmp_path: Path
) -> None:
    config = RECIPES / "debug_mulan_text.toml"
    given = ("--config", config, "--mulan", finished, "--features", features, "--run", tmp_path)
    run(RECIPES / "train_text_tower.py", *given)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert records[-1]["valid_mrr"] > 0 and records[-2]["code"] < 5.4  # nats; 256 codes at random cost 5.5
    before, _ = load_mulan(finished)
    after, resolved = load_mulan(tmp_path / "export" / "mulan-debug")
    changed = {
        name for name, value in before.servable_state().items() if not torch.equal(value, after.servable_state()[name])
    }
    assert changed and all(name.startswith("text.") or name == "log_temperature" for name in changed)
    assert resolved.config["training"]["text_tower_steps"] <= 60


def test_a_code_costs_the_less_the_nearer_the_text_and_each_level_follows_the_true_one() -> None:
    books = [torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[0.5, 0.2], [0.0, -0.2]])]
    codes = torch.tensor([[0, 1]])
    near, far = torch.tensor([[1.0, -0.2]]), torch.tensor([[-1.0, 0.2]])
    assert float(code_loss(near, codes, books, 0.1)) < 0.5 < float(code_loss(far, codes, books, 0.1))
    alone = [float(code_loss(near, codes[:, level:], [book], 0.1)) for level, book in enumerate(books)]
    # the second level alone sees a point a whole unit away, after the first one only what is left of it
    second = 2 * float(code_loss(near, codes, books, 0.1)) - alone[0]
    rest = near - books[0][0]
    expected = float(F.cross_entropy(-torch.cdist(rest, books[1]).square() / 0.1, codes[:, 1]))
    assert second == pytest.approx(expected, abs=1e-5)


def test_a_run_that_stops_after_a_validation_knows_its_score_when_it_goes_on(features: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(train_mulan.read_recipe(RECIPES / "debug.toml"), validate_every_s=-1.0, max_steps=9)
    trainer = train_mulan.Trainer(recipe, features, None, tmp_path)
    step = trainer.step

    def stopped(number: int, progress: float) -> dict[str, float]:
        if number == 1:
            raise KeyboardInterrupt
        return step(number, progress)

    trainer.step = stopped  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        train_mulan.run(trainer)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    [score] = [record["valid_mrr"] for record in records if "valid_mrr" in record]
    again = train_mulan.Trainer(recipe, features, None, tmp_path)
    assert again.resume().step == 1 and again.best == pytest.approx(score, abs=1e-4) and score > 0


TINY = MuLanConfig(
    embedding_dim=16, stem_channels=(4, 8), audio_dim=24, audio_layers=1, audio_heads=2, num_rhythm_lags=0,
    text_states_dim=12, text_dim=24, text_layers=1, text_heads=2, num_codebooks=2, cardinality=8,
)  # fmt: skip


def points_about(mean: torch.Tensor, seed: int) -> torch.Tensor:
    noise = torch.randn(200, 16, generator=torch.Generator().manual_seed(seed))
    return F.normalize(mean + 0.1 * noise, dim=1)


def test_codes_are_fitted_to_points_without_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    model, plain = MuLan(TINY), MuLan(TINY)
    audio, text = points_about(torch.ones(16) / 4, 0), points_about(-torch.ones(16) / 4, 1)
    monkeypatch.setattr(train_mulan, "fitted_temperature", lambda model, valid: torch.tensor(0.1))
    train_mulan.centre_and_fit(model, audio, text, cast(JointFeatures, None))
    torch.testing.assert_close(model.audio_mean, audio.mean(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(model.text_mean, text.mean(0), atol=1e-3, rtol=0)
    torch.manual_seed(0)
    centred = F.normalize(audio - model.audio_mean, dim=1)
    plain.quantizer.initialise(centred[:, None])
    assert torch.equal(model.quantize(centred), plain.quantize(centred))
    likeness = (model.dequantize(model.quantize(centred)) * centred).sum(1)
    assert len(model.quantize(centred)[:, 0].unique()) == 8 and float(likeness.mean()) > 0.5


def test_the_temperature_is_fitted_to_points_without_their_means(monkeypatch: pytest.MonkeyPatch) -> None:
    model, valid = MuLan(TINY), cast(JointFeatures, Counted())
    pairs = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    means = {"audio": torch.ones(16), "text": -2 * torch.ones(16)}
    for name, mean in means.items():
        getattr(model, f"{name}_mean").copy_(mean)
        noise = torch.randn(200, 16, generator=torch.Generator().manual_seed(len(name)))
        points = F.normalize(pairs + 0.7 * noise, dim=1) + mean
        monkeypatch.setattr(train_mulan, f"raw_{name}", lambda *_, points=points: points)
    fitted = train_mulan.fitted_temperature(model, valid)
    for name, mean in means.items():
        points = getattr(train_mulan, f"raw_{name}")() - mean
        getattr(model, f"{name}_mean").zero_()
        monkeypatch.setattr(train_mulan, f"raw_{name}", lambda *_, points=points: points)
    torch.testing.assert_close(train_mulan.fitted_temperature(model, valid), fitted)
    assert 0.03 < float(fitted) < 0.9


class Counted:
    """200 clips of one caption each."""

    def __len__(self) -> int:
        return 200

    def num_captions(self, index: int) -> int:
        return 1


def test_captions_come_back_as_they_were_written(features: Path) -> None:
    joint = JointFeatures([(features, "train")])
    with np.load(features / "text_train_0000.npz") as text:
        first, last = text["offsets"][3][1:3]
        expected = text["states"][first:last].astype(np.float32)
    captions = joint.captions([0, 3], [0, 1])
    assert int(captions.mask[1].sum()) == len(expected)
    np.testing.assert_array_equal(captions.states[1][captions.mask[1]].numpy(), expected)
    assert joint.num_captions(0) == 3
    assert joint.mel([2], [5], 7).shape == (1, 7, 80)


def test_missing_features_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mel,text.*_train"):
        JointFeatures([(tmp_path, "train")])


def test_the_loss_is_least_where_pairs_meet_and_spares_captions_that_say_the_same() -> None:
    torch.manual_seed(0)
    points = F.normalize(torch.randn(6, 8), dim=1)
    temperature, own = torch.tensor(0.1), torch.eye(6, dtype=torch.bool)
    met = contrastive_loss(points, points, temperature, own)
    assert met < contrastive_loss(points, points.roll(1, 0), temperature, own) - 1
    # By hand: the positive is not in the denominator.
    logits = points @ points.t() / 0.1
    rows = [(-2 * logits[i, i] + 2 * torch.logsumexp(logits[i][~own[i]], 0)) / 2 for i in range(6)]
    torch.testing.assert_close(met, torch.stack(rows).mean())
    twins = points.clone()
    twins[1] = twins[0]
    spared = own.clone()
    spared[0, 1] = spared[1, 0] = True
    assert contrastive_loss(twins, twins, temperature, spared) < contrastive_loss(twins, twins, temperature, own) - 0.5


def test_ranks_count_what_is_better() -> None:
    found = retrieval(torch.eye(12), torch.eye(12))
    assert found == {"mrr": 1.0, "r1": 1.0, "r10": 1.0}
    backwards = retrieval(torch.eye(12), -torch.eye(12))
    assert backwards["r10"] == 0.0 and backwards["mrr"] == pytest.approx(1 / 12)


def test_perturbing_moves_levels_and_hides_stretches_but_leaves_silence_silent() -> None:
    random = np.random.default_rng(0)
    assert SILENCE == TOWER_SILENCE
    mel = torch.full((4, 100, 80), 0.5)
    louder = perturbed(mel, random, gain_db=6.0, eq_db=0.0, max_masked=0)
    assert torch.equal(louder.amax((1, 2)), louder.amin((1, 2))) and len(set(louder[:, 0, 0].tolist())) == 4
    assert (louder - mel).abs().max() <= 6 * np.log(10) / 40 + 1e-6
    coloured = perturbed(mel, random, gain_db=0.0, eq_db=3.0, max_masked=0)
    assert float(coloured.std(2).min()) > 0 and torch.equal(coloured[:, 0], coloured[:, 99])
    masked = perturbed(mel, random, gain_db=0.0, eq_db=0.0, max_masked=40)
    assert ((masked == SILENCE) | (masked == 0.5)).all() and 0 < float((masked == SILENCE).float().mean()) < 0.6
    silent = torch.full((2, 50, 80), SILENCE)
    assert perturbed(silent, random, gain_db=0.0, eq_db=0.0, max_masked=5).eq(SILENCE).all()
    assert perturbed(silent, random, gain_db=6.0, eq_db=3.0, max_masked=0).min() >= SILENCE


def scores_of(**heard: float) -> dict[str, float]:
    known = {name for classes in FAMILIES.values() for name in classes} | set(GENRES) | set(MOODS)
    return {**dict.fromkeys(known, 0.0), **{name.replace("_", " "): score for name, score in heard.items()}}


def test_sure_tags_become_captions_and_unsure_ones_do_not() -> None:
    record = ClipRecord("real-x-000", "train", "wesnoth", "x")
    described = tagged(record, scores_of(Cello=0.3, Flute=0.2, Drum=0.01, Sad_music=0.2, Soundtrack_music=0.3))
    assert described is not None
    assert [use.name for use in described.instruments] == ["cello", "flute"]
    assert (described.mood, described.genre, described.texture, described.tempo_bpm) == (
        "sad",
        "soundtrack",
        None,
        None,
    )
    assert len(described.captions) == 3 and any("flute" in caption for caption in described.captions)
    assert tagged(record, scores_of(Cello=0.01, Sad_music=0.9)) is None


def test_only_the_pianos_of_maps_are_known_to_play_alone() -> None:
    record = ClipRecord("real-x-000", "train", "maps", "x")
    alone = tagged(record, scores_of(Piano=0.2))
    assert alone is not None and alone.texture == "solo chords"
    accompanied = tagged(record, scores_of(Piano=0.2, Flute=0.1))
    assert accompanied is not None and accompanied.texture is None
    elsewhere = tagged(dataclasses.replace(record, source="wesnoth"), scores_of(Piano=0.2))
    assert elsewhere is not None and elsewhere.texture is None


def test_the_three_surest_families_are_named_and_every_class_has_a_program() -> None:
    heard = instruments_heard(scores_of(Piano=0.1, Flute=0.2, Harp=0.3, Drum_kit=0.4))
    assert [(use.family, use.role) for use in heard] == [("drums", "drums"), ("harp", "chords"), ("flute", "chords")]
    assert {name for classes in FAMILIES.values() for name in classes} <= set(PROGRAMS)
