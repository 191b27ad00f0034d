"""Analyses as files; each writer takes a `WrittenAnalysis` and gives bytes. No torch, no threads, no wire."""

from collections.abc import Callable, Mapping

from stretto_harmony.writers.dcml_tsv import write_dcml_tsv
from stretto_harmony.writers.json_labels import write_json
from stretto_harmony.writers.musicxml import write_musicxml
from stretto_harmony.writers.romantext import write_romantext
from stretto_harmony.writers.written import AnalysisFormat, WrittenAnalysis

WRITERS: Mapping[AnalysisFormat, Callable[[WrittenAnalysis], bytes]] = {
    AnalysisFormat.ROMANTEXT: write_romantext,
    AnalysisFormat.DCML_TSV: write_dcml_tsv,
    AnalysisFormat.JSON: write_json,
    AnalysisFormat.MUSICXML: write_musicxml,
}
