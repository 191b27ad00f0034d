"""The words that captions use for each attribute value.

Curated by hand; adjectives, moods and textures were chosen among the frequent aspects of MusicCaps (CC BY-SA 4.0, words
only), where the attribute makes them true. A word stands under one value of an attribute and under no other value of
it, which is what lets a test hold captions to their records.
"""

from __future__ import annotations

from collections.abc import Mapping

Words = Mapping[str, tuple[str, ...]]

MOODS: Words = {
    "happy": ("happy", "cheerful", "joyful", "upbeat", "uplifting", "bright", "playful", "merry", "feel-good"),
    "calm": ("calm", "peaceful", "relaxing", "soothing", "tranquil", "serene", "dreamy"),
    "warm": ("warm", "pleasant", "easygoing", "tender", "heartfelt", "mellow", "romantic"),
    "bold": ("bold", "triumphant", "confident", "majestic", "inspiring"),
    "tense": ("tense", "dramatic", "urgent", "agitated", "suspenseful", "restless", "intense"),
    "sad": ("sad", "mournful", "sorrowful", "gloomy", "wistful", "somber"),
    "dark": ("dark", "ominous", "brooding", "stormy", "sinister"),
    "melancholic": ("melancholic", "melancholy", "pensive", "bittersweet", "nostalgic", "moody"),
    "energetic": ("energetic", "driving", "exciting", "vigorous", "danceable", "lively"),
    "relaxed": ("relaxed", "laid-back", "chilled", "easy", "unhurried"),
}

TEMPOS: Words = {
    "very slow": ("very slow", "extremely slow", "very slow tempo"),
    "slow": ("slow", "slow tempo", "slow-paced", "at a slow tempo"),
    "moderate": ("medium tempo", "mid-tempo", "moderate tempo", "moderately paced"),
    "fast": ("fast", "fast tempo", "uptempo", "fast-paced", "brisk"),
    "very fast": ("very fast", "very fast tempo", "rapid", "racing", "frantic tempo"),
}

DYNAMICS: Words = {
    "soft": ("soft", "quiet", "gentle", "delicate", "softly played"),
    "medium": (),
    "loud": ("loud", "powerful", "forceful", "strong", "loudly played"),
}

TEXTURES: Words = {
    "solo chords": ("chordal texture", "single instrument", "no other instruments"),
    "solo melody": ("single melodic line", "unaccompanied melody", "monophonic", "no other instruments"),
    "solo bass": ("bass line", "bass solo", "no other instruments"),
    "solo drums": ("drum groove", "drum solo", "steady drumming", "percussion only"),
    "melody and chords": ("melody with accompaniment", "duet", "melody over chords"),
    "melody and bass": ("duet", "melody over a bass line"),
    "bass and drums": ("rhythm section", "bass line over a beat", "groove"),
    "melody and drums": ("melody over a beat", "duet"),
    "chorale": ("chorale", "four-part harmony", "four voices", "hymn-like"),
    "trio": ("trio", "three instruments"),
    "band without chords": ("trio", "melody with a rhythm section"),
    "band": ("full band", "band arrangement", "four instruments"),
    "two voices": ("duo", "two parts", "in two parts"),
    "three voices": ("three-part texture", "in three parts", "three parts"),
    "four voices": ("four-part texture", "in four parts", "four parts"),
    "five voices": ("five-part texture", "in five parts", "five parts"),
}

REGISTERS: Words = {
    "low": ("low register", "deep", "low-pitched"),
    "high": ("high register", "high-pitched"),
}

ROOMS: Words = {
    "hall": ("reverberant", "lots of reverb", "in a large hall", "spacious"),
}

# What a family may be called when the caption does not name the instrument itself.
FAMILY_NAMES: Words = {
    "piano": ("piano", "keyboard"),
    "electric piano": ("electric piano", "keyboard"),
    "mallets": ("mallet percussion", "tuned percussion"),
    "organ": ("organ",),
    "guitar": ("guitar",),
    "bass": ("bass",),
    "strings": ("strings", "bowed strings"),
    "choir": ("choir", "vocal choir"),
    "brass": ("brass", "brass instrument"),
    "saxophone": ("saxophone", "sax"),
    "woodwind": ("woodwind", "reed instrument"),
    "flute": ("flute", "wind instrument"),
    "synth lead": ("synthesizer", "lead synth"),
    "synth pad": ("synthesizer pad", "ambient synth"),
    "plucked": ("plucked strings",),
    "drums": ("drums", "percussion"),
}

# Programs that the family's name would misname: what is plucked is not bowed.
NO_FAMILY_NAME = frozenset({22, 45, 72, 79})
