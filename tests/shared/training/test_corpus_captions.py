"""Captions: they state only what is true of the clip, and the held-out templates are never used in training."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
from stretto_shared.training.corpus import vocabulary
from stretto_shared.training.corpus.captions import HELDOUT_TEMPLATES, TRAIN_TEMPLATES, article, listed, make_captions
from stretto_shared.training.corpus.clips import describe
from stretto_shared.training.corpus.debug import debug_library
from stretto_shared.training.corpus.instruments import names_of
from stretto_shared.training.corpus.moods import mood, tempo_word
from stretto_shared.training.corpus.orchestration import arrange
from stretto_shared.training.corpus.records import ClipRecord, InstrumentUse
from stretto_shared.training.corpus.room import draw_room

# Words that name a family wherever they stand; `pad`, `bass` and others occur inside other names.
FAMILY_WORDS = {
    "piano": ("grand piano", "acoustic piano"),
    "harpsichord": ("harpsichord", "cembalo"),
    "mallets": ("vibraphone", "marimba", "xylophone", "celesta", "glockenspiel", "mallet"),
    "organ": ("organ",),
    "guitar": ("acoustic guitar", "electric guitar", "distorted guitar"),
    "strings": ("violin", "cello", "viola", "pizzicato"),
    "harp": ("harp",),
    "choir": ("choir",),
    "brass": ("trumpet", "trombone", "tuba", "brass"),
    "saxophone": ("saxophone", "sax"),
    "woodwind": ("oboe", "clarinet", "bassoon"),
    "flute": ("flute", "recorder", "piccolo"),
    "drums": ("drums", "drum", "percussion"),
    "bass": ("bass guitar", "double bass", "electric bass"),
}


@cache
def records() -> tuple[ClipRecord, ...]:
    """Records of many arrangements, without rendering them."""
    rng = np.random.default_rng(0)
    library = debug_library("train")
    made = []
    for index in range(80):
        arrangement = arrange(library, rng)
        made.append(describe(arrangement, list(arrangement.parts), draw_room(rng), "timgm6mb", "train", f"t-{index}"))
    return tuple(made)


def says(caption: str, phrase: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(phrase.lower())}(?![\w-])", caption.lower()) is not None


def all_captions(record: ClipRecord) -> tuple[str, ...]:
    return make_captions(record, 0) + make_captions(record, 0, templates="heldout")


def test_captions_never_name_an_instrument_that_does_not_sound() -> None:
    for record in records():
        sounding = {use.family for use in record.instruments}
        allowed = " ".join(name for use in record.instruments for name in names_of(use.program, use.family)).lower()
        allowed += " ".join(word for family in sounding for word in vocabulary.FAMILY_NAMES.get(family, ()))
        allowed += " ".join(vocabulary.TEXTURES[record.texture or ""])
        for caption in all_captions(record):
            for family, words in FAMILY_WORDS.items():
                if family not in sounding:
                    assert not any(says(caption, word) and word not in allowed for word in words), (caption, family)


def test_captions_never_state_a_false_tempo_mood_mode_or_dynamics() -> None:
    for record in records():
        true = {
            word
            for table, value in (
                (vocabulary.MOODS, record.mood),
                (vocabulary.TEMPOS, record.tempo_word),
                (vocabulary.DYNAMICS, record.dynamics),
                (vocabulary.REGISTERS, record.register),
                (vocabulary.ROOMS, record.room),
            )
            for word in table.get(value or "", ())
        }
        false = {
            word
            for table in (
                vocabulary.MOODS,
                vocabulary.TEMPOS,
                vocabulary.DYNAMICS,
                vocabulary.REGISTERS,
                vocabulary.ROOMS,
            )
            for words in table.values()
            for word in words
        } - true
        for caption in all_captions(record):
            rest = caption.lower()
            for word in sorted(true, key=len, reverse=True):
                rest = rest.replace(word, " ")
            assert not [word for word in false if says(rest, word)], (caption, record)
            for bpm in re.findall(r"(\d+) bpm", caption.lower()):
                assert abs(float(bpm) - (record.tempo_bpm or 0.0)) <= 2.5
            for mode in ("major", "minor"):
                assert not says(caption, mode) or record.key_mode == mode
            tonic = re.search(r"(?:in|key of) ([A-G](?: sharp| flat|#|b)?) (major|minor)", caption)
            if tonic:
                assert tonic[1].replace("#", " sharp").replace("b", " flat") == record.key_tonic


def test_every_training_clip_names_an_instrument_and_captions_grow_longer() -> None:
    lengths = np.array([[len(caption) for caption in make_captions(record, 0)] for record in records()])
    assert (np.diff(lengths.mean(axis=0)) > 5).all()
    for record in records():
        names = {name for use in record.instruments for name in names_of(use.program, use.family)}
        names |= {name for use in record.instruments for name in vocabulary.FAMILY_NAMES.get(use.family, ())} | {
            "quartet",
            "drum",
        }
        for caption in make_captions(record, 0):
            assert any(says(caption, name) for name in names), caption


def test_heldout_templates_are_disjoint_from_training_templates() -> None:
    assert not set(TRAIN_TEMPLATES) & set(HELDOUT_TEMPLATES)
    marks = ("I want to hear", "can be heard in this", "Something ")
    for record in records():
        assert not any(mark in caption for caption in make_captions(record, 0) for mark in marks)
        assert all(any(mark in caption for mark in marks) for caption in make_captions(record, 0, templates="heldout"))


def test_captions_depend_on_the_record_and_the_seed_alone() -> None:
    record = records()[0]
    assert make_captions(record, 0) == make_captions(record, 0)
    assert any(make_captions(one, 0) != make_captions(one, 1) for one in records()[:5])


def test_short_prompts_occur() -> None:
    short = [make_captions(record, 0)[0] for record in records()]
    assert sum(len(caption.split()) <= 3 for caption in short) > 0.1 * len(short)
    assert any(caption.startswith("solo ") for caption in short)


def test_unknown_attributes_are_not_mentioned() -> None:
    use = InstrumentUse("melody", 73, "flute", "flute")
    bare = ClipRecord("bare", "train", "schmubert", "x", instruments=(use,), texture="solo melody")
    for caption in all_captions(bare):
        assert not re.search(r"\d|major|minor|mood|style|it sounds|it feels", caption.lower()), caption


def test_tempo_words_and_moods_follow_their_rules() -> None:
    assert tempo_word(55.0, 2.0) == "very slow"
    assert tempo_word(60.0, 8.0) is None
    assert tempo_word(60.0, 3.0) == "slow"
    assert tempo_word(130.0, 4.0) == "fast"
    assert tempo_word(160.0, 0.5) is None
    assert mood("major", "fast", "medium", drums_only=False) == "happy"
    assert mood("minor", "slow", "medium", drums_only=False) == "sad"
    assert mood("minor", "fast", "loud", drums_only=False) == "tense"
    assert mood(None, "fast", "loud", drums_only=True) == "energetic"


def test_articles_and_lists_read_as_english() -> None:
    assert article("oboe") == "an oboe"
    assert article("drums") == "drums"
    assert article("brass section") == "a brass section"
    assert listed(["a piano", "a flute", "drums"]) == "a piano, a flute and drums"
