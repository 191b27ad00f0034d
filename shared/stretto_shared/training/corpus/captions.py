"""Captions by a grammar over a clip's true attributes.

A caption is drawn in three steps: which attributes it states (many are dropped, so that prompts as short as `solo
piano` occur), which template frames them, and which word stands for each. Nothing is stated that the record does not
hold; an attribute that is None is never mentioned. `TRAIN_TEMPLATES` and `HELDOUT_TEMPLATES` are disjoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stretto_shared.training.corpus import vocabulary
from stretto_shared.training.corpus.instruments import names_of
from stretto_shared.training.corpus.records import ClipRecord, InstrumentUse
from stretto_shared.training.corpus.splits import stable_unit

NUM_CAPTIONS = 3
# The chance that each attribute is stated in a short, a medium and a long caption.
STATED = {"mood": (0.35, 0.6, 0.85), "tempo": (0.2, 0.6, 0.85), "bpm": (0.1, 0.25, 0.55), "key": (0.05, 0.25, 0.6)}
STATED |= {"mode": (0.05, 0.15, 0.2), "genre": (0.2, 0.5, 0.8), "dynamics": (0.15, 0.35, 0.6), "room": (0.05, 0.3, 0.6)}
STATED |= {"texture": (0.1, 0.3, 0.5), "register": (0.15, 0.4, 0.6)}
STATED |= {"bpm of a beat": (0.45, 0.75, 0.9)}  # where drums sound, so that the number is plainly heard
_PLURALS = frozenset(
    {"drums", "strings", "bells", "vibes", "voices", "panpipes", "chimes", "brass", "percussion", "woodwind"}
)
_ENSEMBLES = {"saxophone": "saxophone", "strings": "string", "brass": "brass", "flute": "flute"}
_SIZES = {"chorale": "quartet", "three voices": "trio", "four voices": "quartet", "five voices": "quintet"}


@dataclass(frozen=True)
class Facts:
    """The words chosen for one caption; an empty string is an attribute that it does not state."""

    instruments: tuple[str, ...]
    alone: bool
    roles: tuple[tuple[str, str], ...]
    mood: str = ""
    tempo: str = ""
    bpm: str = ""
    key: str = ""
    genre: str = ""
    dynamics: str = ""
    texture: str = ""
    register: str = ""
    room: str = ""

    @property
    def adjectives(self) -> list[str]:
        """What can stand before a noun."""
        before = [
            self.mood,
            self.tempo if _is_adjective(self.tempo) else "",
            self.dynamics,
            self.register if self.register == "deep" else "",
        ]
        return [word for word in before if word and " played" not in word and not word.endswith("played")]

    @property
    def remarks(self) -> list[str]:
        """What stands after a noun, each a phrase of its own."""
        used = set(self.adjectives)
        words = [self.tempo, self.dynamics, self.bpm, self.key, self.register, self.room, self.texture]
        return [word for word in words if word and word not in used]


Template = Callable[[Facts, np.random.Generator], str]


def _is_adjective(tempo: str) -> bool:
    return (bool(tempo) and not tempo.startswith("at ") and not tempo.endswith("tempo")) or tempo in (
        "mid-tempo",
        "uptempo",
    )


def article(name: str) -> str:
    """The name with its indefinite article, or alone if it is a plural or a mass."""
    words = name.split()
    if words[-1] in _PLURALS or (
        words[0] in _PLURALS and words[-1] not in ("section", "beat", "quartet", "instrument")
    ):
        return name
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def choose(record: ClipRecord, length: int, rng: np.random.Generator) -> Facts:
    """Decide what a short (0), medium (1) or long (2) caption states, and in which words."""

    def pick(attribute: str, words: Sequence[str]) -> str:
        return str(words[int(rng.integers(len(words)))]) if words and rng.random() < STATED[attribute][length] else ""

    instruments, roles = _instruments(record, length, rng)
    alone = record.texture is not None and record.texture.startswith("solo")
    tonality = ""
    if record.key_tonic and record.key_mode:
        tonic = (
            record.key_tonic if rng.random() < 0.6 else record.key_tonic.replace(" sharp", "#").replace(" flat", "b")
        )
        tonality = pick("key", (f"in {tonic} {record.key_mode}", f"in the key of {tonic} {record.key_mode}"))
    if record.key_mode and not tonality:
        tonality = pick("mode", (f"in a {record.key_mode} key", f"{record.key_mode} key"))
    bpm = ""
    if record.tempo_bpm:
        about = 5 * round(record.tempo_bpm / 5)
        drummed = any(use.family == "drums" for use in record.instruments)
        words = (f"at {record.tempo_bpm:.0f} bpm", f"{record.tempo_bpm:.0f} BPM", f"around {about} bpm")
        bpm = pick("bpm of a beat" if drummed else "bpm", words)
    return Facts(
        instruments,
        alone,
        roles,
        mood=pick("mood", vocabulary.MOODS.get(record.mood or "", ())),
        tempo=pick("tempo", vocabulary.TEMPOS.get(record.tempo_word or "", ())),
        bpm=bpm,
        key=tonality,
        genre=pick("genre", (record.genre,) if record.genre else ()),
        dynamics=pick("dynamics", vocabulary.DYNAMICS.get(record.dynamics or "", ())),
        texture=pick("texture", vocabulary.TEXTURES.get(record.texture or "", ())),
        register=pick("register", vocabulary.REGISTERS.get(record.register or "", ())),
        room=pick("room", vocabulary.ROOMS.get(record.room or "", ())),
    )


def _instruments(
    record: ClipRecord, length: int, rng: np.random.Generator
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The names of the sounding instruments, each once, and who plays which role."""
    uses: dict[int | str, InstrumentUse] = {}
    for use in record.instruments:
        uses.setdefault("drums" if use.family == "drums" else use.program, use)
    families = {use.family for use in uses.values()}
    size = _SIZES.get(record.texture or "", "")
    if size and len(families) == 1 and len(uses) > 1 and rng.random() < 0.4:
        family = next(iter(families))
        if family in _ENSEMBLES:
            return (f"{_ENSEMBLES[family]} {size}",), ()
    named: dict[str, str] = {}
    for use in uses.values():
        names = names_of(use.program, use.family)
        family_names = vocabulary.FAMILY_NAMES.get(use.family, ())
        if family_names and use.program not in vocabulary.NO_FAMILY_NAME and rng.random() < 0.15:
            names = family_names
        first = rng.random() < 0.55
        named.setdefault(names[0] if first else str(names[int(rng.integers(len(names)))]), use.role)
    pairs = list(named.items())
    if length == 0 and len(pairs) > 2 and rng.random() < 0.4:
        pairs = pairs[: 2 + int(rng.random() < 0.3)]
    return tuple(name for name, _ in pairs), tuple((role, name) for name, role in pairs)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _played_by(facts: Facts, rng: np.random.Generator) -> str:
    """The instruments as a noun phrase; where one plays alone, what it plays."""
    if not facts.alone or len(facts.instruments) != 1:
        return listed(facts.instruments)
    name = facts.instruments[0]
    nouns = {"melody": ("melody", "tune"), "bass": ("line",), "drums": ("groove", "beat"), "chords": ("music", "piece")}
    played = str(rng.choice(nouns[facts.roles[0][0]]))
    stem = name.removesuffix("s") if name.endswith("drums") else name
    return str(rng.choice([f"solo {name}", f"{stem} solo", f"{stem} {played}", name], p=[0.45, 0.1, 0.25, 0.2]))


def _phrase(facts: Facts, rng: np.random.Generator) -> str:
    front = [*facts.adjectives, facts.genre]
    if len(front) > 2 and rng.random() < 0.5:
        front = [", ".join(facts.adjectives), facts.genre]
    phrase = " ".join(word for word in [*front, _played_by(facts, rng)] if word)
    if len(facts.instruments) == 1 and not phrase.endswith("music") and rng.random() < 0.3:
        phrase = article(phrase)
    return str(rng.choice([" ", ", "])).join([phrase, *facts.remarks[:2]])


def _tags(facts: Facts, rng: np.random.Generator) -> str:
    tags = [
        *facts.instruments,
        *facts.adjectives,
        facts.genre,
        *facts.remarks,
        "solo" if facts.alone else "",
        "instrumental" if rng.random() < 0.2 else "",
    ]
    kept = [tag for tag in tags if tag]
    return ", ".join(kept[index] for index in rng.permutation(len(kept)))


def _sentence(facts: Facts, rng: np.random.Generator) -> str:
    noun = str(rng.choice(["piece", "tune", "track", "instrumental"]))
    verb = str(rng.choice(["played on", "performed on", "for", "with", "featuring"]))
    front = " ".join(word for word in [", ".join(facts.adjectives), facts.genre, noun] if word)
    names = [facts.instruments[0] if verb == "for" and facts.alone else article(name) for name in facts.instruments]
    subject = f"{_capital(article(front))} {verb} {'solo ' if verb == 'for' and facts.alone else ''}{listed(names)}"
    return ", ".join([subject, *facts.remarks]) + "."


def _described(facts: Facts, rng: np.random.Generator) -> str:
    opening = str(rng.choice(["This is", "The clip is", "Here is"]))
    noun = str(rng.choice(["a piece", "an instrumental", "a recording", "music"]))
    sentences = [f"{opening} {noun} featuring {listed([article(name) for name in facts.instruments])}"]
    if facts.alone and len(facts.instruments) == 1:
        alone = str(rng.choice(["playing alone", "on its own", "without accompaniment"]))
        sentences = [f"{opening} {article(facts.instruments[0])} {alone}"]
    if facts.mood:
        sentences.append(
            str(rng.choice([f"the mood is {facts.mood}", f"it sounds {facts.mood}", f"it feels {facts.mood}"]))
        )
    rest = [
        word
        for word in [facts.tempo, facts.bpm, facts.key, facts.dynamics, facts.register, facts.room, facts.texture]
        if word
    ]
    if facts.genre:
        sentences.append(str(rng.choice([f"the style is {facts.genre}", f"{facts.genre} style"])))
    if rest:
        sentences.append(", ".join(rest))
    return ". ".join(_capital(sentence) for sentence in sentences) + "."


def _by_role(facts: Facts, rng: np.random.Generator) -> str:
    """Who plays what; falls back to a sentence where there is no melody over something."""
    roles = dict(facts.roles)
    if "melody" not in roles or len(roles) < 2:
        return _sentence(facts, rng)
    tune = str(rng.choice(["plays the melody over", "carries the tune over", "leads over", "melody accompanied by"]))
    others = listed([name if tune.endswith("by") else article(name) for role, name in facts.roles if role != "melody"])
    first = roles["melody"] if tune.endswith("by") else article(roles["melody"])
    front = " ".join([*facts.adjectives, facts.genre]).strip()
    subject = f"{first} {tune} {others}"
    pieces = [f"{front}: {subject}" if front else subject, *facts.remarks]
    return _capital(", ".join(pieces)) + "."


def _wish(facts: Facts, rng: np.random.Generator) -> str:
    what = listed([article(name) for name in facts.instruments])
    tail = [*facts.adjectives, facts.genre, *facts.remarks]
    wishes = ", ".join(word for word in tail if word) or "nothing more"
    return f"I want to hear {what}{' alone' if facts.alone else ''}; {wishes}."


def _heard(facts: Facts, rng: np.random.Generator) -> str:
    names = _capital(listed([article(name) for name in facts.instruments]))
    kind = " ".join(word for word in [*facts.adjectives, facts.genre, "excerpt"] if word)
    return ". ".join([f"{names} can be heard in this {kind}", *(_capital(word) for word in facts.remarks)]) + "."


def _something(facts: Facts, rng: np.random.Generator) -> str:
    qualities = listed(facts.adjectives) if facts.adjectives else "musical"
    return " ".join(["Something", qualities, "on", listed(facts.instruments), *facts.remarks[:2]])


TRAIN_TEMPLATES: tuple[Template, ...] = (_phrase, _tags, _sentence, _described, _by_role)
HELDOUT_TEMPLATES: tuple[Template, ...] = (_wish, _heard, _something)


def make_captions(record: ClipRecord, seed: int, *, templates: str = "train") -> tuple[str, ...]:
    """Three captions of a clip, from short to long; a pure function of the record and the seed.

    Args:
        record: The attributes that may be stated.
        seed: The seed of the choice of words; the corpus uses its own seed.
        templates: `train`, or `heldout` for templates that no training caption uses.
    """
    choices = {"train": TRAIN_TEMPLATES, "heldout": HELDOUT_TEMPLATES}[templates]
    rng = np.random.default_rng([seed, int(stable_unit(f"{templates}/{record.clip_id}") * 2**53)])
    captions = []
    for length in range(NUM_CAPTIONS):
        facts = choose(record, length, rng)
        weights = np.array([0.7, 0.2, 0.1, 0.0, 0.0] if length == 0 else [0.2, 0.2, 0.25, 0.2, 0.15])
        weights = weights if templates == "train" else np.full(len(choices), 1.0 / len(choices))
        captions.append(choices[int(rng.choice(len(choices), p=weights))](facts, rng))
    return tuple(captions)


def with_captions(record: ClipRecord, seed: int) -> ClipRecord:
    """The record with its captions; held-out captions only on clips that are held out themselves."""
    heldout = () if record.split == "train" else make_captions(record, seed, templates="heldout")
    return replace(record, captions=make_captions(record, seed), heldout_captions=heldout)
