"""The training corpus: captioned clips rendered from public scores, and real recordings for the codecs.

The life of a rendered clip: `library` (scores by source and split) -> `orchestration` (plan, cut, instruments, tempo,
key, dynamics) -> `render` (FluidSynth or symusic) -> `room` (colour and level) -> `captions` -> `build` (shards).
A clip is a pure function of (scores, seed, split, index), and so are its captions.

The corpus, 60 h of training clips, made at 180 to 240 times real time per core (`corpus` stands for
`python -m stretto_shared.training.corpus`; each repertoire has its own shards: from 0, 1000, 2000 and 3000):

    corpus render --data DIR --out corpus/v1 --clips 9000 --heldout 300 --workers 2
    corpus render --data DIR --out corpus/v1 --clips 6000 --heldout 100 --repertoire rhythm
    corpus render --data DIR --out corpus/v1 --clips 3000 --heldout 100 --repertoire ensemble
    corpus render --data DIR --out corpus/v1 --clips 3000 --heldout 100 --repertoire solo
    corpus real --data DIR --out corpus/real

The third plays music21's corpus alone; its first run parses the scores into `corpus/scores/music21` (two minutes of one
core). The clips of a repertoire do not depend on which others are rendered, nor on how many: with `--clips 0` the four
render the held-out clips alone, which the evals need, in three minutes of one core.

where DIR holds:

- `symbolic/pop909.tar.xz`: POP909, MIT, music-x-lab/POP909-Dataset.
- `symbolic/schmubert_samples.tar.xz`: trios of SCHmUBERT's train and valid samples (Lakh-derived), MIT,
  plassma/symbolic-music-discrete-diffusion. Its generated samples are not used.
- `symbolic/jsb_chorales.tar.xz`: Bach chorales on a 16th grid, public-domain music, czhuang/JSB-Chorales-dataset.
- `symbolic/piano_midi_de.tar.xz`: piano-midi.de, CC BY-SA, cheriell/ClassicalPianoMIDI-dataset.
- `symbolic/groove.tar.xz`: Groove MIDI dataset, CC BY 4.0, magenta.tensorflow.org/datasets/groove.
- music21's corpus comes with the Python package; see `shelves` for what is taken, and its licences: all of it public
  domain music, many encodings without a licence of their own or for non-commercial use only.
- `maps/train/*.opus`: MAPS, CC BY-NC-SA (see `real` for the recordings).

SoundFonts: MuseScore General (MIT), FluidR3 GM (MIT), TimGM6mb (GPL-2), from Debian's packages
`musescore-general-soundfont-small`, `fluid-soundfont-gm`, `timgm6mb-soundfont`. Caption vocabulary: words from the
aspects of MusicCaps (CC BY-SA 4.0).
"""
