from pathlib import Path

import numpy as np
import pytest
import torch
from quality.semantic_tokens import LogMelTokens, chance, read_split, score_task, use_of
from stretto_shared.training.corpus.records import ClipRecord, write_records
from stretto_shared.training.token_probe import NO_TRUTH, ProbeOptions


def test_tokens_that_say_the_truth_are_surely_above_tokens_that_do_not() -> None:
    random = np.random.default_rng(0)
    valid, test = random.integers(0, 8, (40, 20)), random.integers(0, 8, (40, 20))
    noise = [random.integers(0, 8, (40, 20)) for _ in range(2)]
    tokens = {"semantic": [valid, test], "log-mel": noise}
    score = score_task(ProbeOptions(8, 4, 1), tokens, valid % 4, test % 4)
    assert score.semantic == 1.0 and score.log_mel < 0.4 and score.gain.low > 0.5
    swapped = score_task(ProbeOptions(8, 4, 1), {"semantic": noise, "log-mel": [valid, test]}, valid % 4, test % 4)
    assert swapped.gain.high < -0.5


def test_chance_is_the_most_frequent_answer_of_the_clips_fitted_on() -> None:
    fitted = np.array([[1, 1, 2, NO_TRUTH, NO_TRUTH, NO_TRUTH]])
    scored = np.array([[1, 2, 2, 2, NO_TRUTH, NO_TRUTH], [1, 1, NO_TRUTH, 0, 0, NO_TRUTH], [NO_TRUTH] * 6])
    assert chance(fitted, scored) == pytest.approx((0.25 + 0.5) / 2)


def test_the_use_of_tokens_tells_even_from_uneven() -> None:
    even = use_of(np.arange(8).reshape(2, 4), 8)
    assert even["used"] == 1 and even["perplexity"] == pytest.approx(8) and even["bits_per_s"] == pytest.approx(75)
    assert even["mean_run_frames"] == 1
    uneven = use_of(np.array([[3, 3, 3, 3], [3, 3, 5, 5]]), 8)
    assert uneven["used"] == 0.25 and uneven["perplexity"] < 2 and uneven["most_bits_per_s"] == 75
    assert uneven["mean_run_frames"] == pytest.approx(8 / 3)


def test_log_mel_tokens_tell_sounds_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    sounds = torch.randn(4, 80, generator=generator)
    which = torch.randint(4, (6, 16), generator=generator)
    mel = sounds[which].repeat_interleave(4, 1) + 0.01 * torch.randn(6, 64, 80, generator=generator)
    ids = LogMelTokens(mel, 16).of(mel.half().numpy())
    assert ids.shape == (6, 16)
    for sound in range(4):
        own = set(ids[(which == sound).numpy()].tolist())
        assert own.isdisjoint(ids[(which != sound).numpy()].tolist())


def test_shards_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "mel_valid_0000.npy", np.zeros((2, 8, 80), np.float16))
    np.save(tmp_path / "chroma_valid_0000.npy", np.zeros((3, 2), np.int8))
    (tmp_path / "clips_valid_0000.jsonl").write_text("")
    with pytest.raises(SystemExit, match="0 records, 2 mel, 3 chroma"):
        read_split(tmp_path, tmp_path, "valid", 0)


def test_a_split_says_which_of_its_shards_had_chroma(tmp_path: Path) -> None:
    for shard in ("0000", "1000", "2000"):
        np.save(tmp_path / f"mel_test_{shard}.npy", np.zeros((2, 8, 80), np.float16))
        write_records(
            tmp_path / f"clips_test_{shard}.jsonl", [ClipRecord(f"{shard}-{n}", "test", "x", "x") for n in (0, 1)]
        )
        if shard != "1000":
            np.save(tmp_path / f"chroma_test_{shard}.npy", np.zeros((2, 2), np.int8))
    split = read_split(tmp_path, tmp_path, "test", 3)
    assert split.described("test") == "3 test clips (chroma was there for 2 of 3 shards: 0000, 2000)"
