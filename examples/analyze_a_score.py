"""A score gets its chords and keys, and after an edit only what the edit has changed is analysed again."""

import argparse
import asyncio
import dataclasses
from pathlib import Path

from stretto_client import AnalysisFormat, HarmonyAnalysis, ScoreFile, StrettoClient


def save(path: Path, content: bytes) -> None:
    """Write a file."""
    path.write_bytes(content)
    print(f"wrote {path}")


async def main(address: str, score_path: Path, output: Path) -> None:
    """Write the analysis of `score_path` to `output` as RomanText."""
    file = ScoreFile.read(score_path)
    async with StrettoClient(address) as client:
        score = await client.read_score(file)
        analysis = await HarmonyAnalysis.collect(client.analyze_harmony(score))
        for label in analysis.joined:
            sure = f"{label.confidence:.0%}"
            print(f"measure {label.measure_number}, beat {label.beat:g}: {label.numeral} in {label.key.name}, {sure}")
        save(output, await client.write_harmony(file, analysis.joined, AnalysisFormat.ROMANTEXT))

        pitches, spellings = score.pitch_midi.copy(), score.spelling_fifths.copy()
        pitches[-1], spellings[-1] = pitches[-1] + 2, spellings[-1] + 2  # the last note, a whole tone higher
        edited = dataclasses.replace(score, pitch_midi=pitches, spelling_fifths=spellings)
        amended = await client.reanalyze_harmony(edited, analysis, first_edited=score.num_measures - 1)
        first, last = analysis.needed_measures(score.num_measures - 1, score.num_measures, score.num_measures)
        print(f"sent {last - first} of {score.num_measures} measures; the last chord is {amended.joined[-1].numeral}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("score", type=Path, help="MusicXML, MIDI or Humdrum")
    parser.add_argument("output", type=Path, help="the RomanText file to write")
    parser.add_argument("--address", default="127.0.0.1:50051")
    given = parser.parse_args()
    asyncio.run(main(given.address, given.score, given.output))
