"""Reading the corpus back: shards of int16 clips, memory-mapped, and their records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stretto_shared.training.corpus.records import ClipRecord, read_records


class AudioShards:
    """The clips of one split of a corpus folder, in the order of its shards at the time of construction.

    Args:
        folder: Holds `audio_{split}_{shard}.npy`, int16 [N, S], and `clips_{split}_{shard}.jsonl`.
        split: `train`, `valid` or `test`.

    Raises:
        FileNotFoundError: If the folder holds no clip of this split.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._arrays: list[NDArray[np.int16]] = []
        self._records: list[ClipRecord] = []
        self._places: list[tuple[int, int]] = []
        for records_path in sorted(Path(folder).glob(f"clips_{split}_*.jsonl")):
            records = read_records(records_path)
            if not records:
                continue
            name = records_path.name.replace("clips_", "audio_").replace(".jsonl", ".npy")
            array: NDArray[np.int16] = np.load(records_path.with_name(name), mmap_mode="r")
            if len(array) != len(records):
                raise ValueError(
                    f"{name} holds {len(array)} clips, its records {len(records)}. Render this shard again."
                )
            self._places += [(len(self._arrays), row) for row in range(len(records))]
            self._arrays.append(array)
            self._records += records
        if not self._records:
            raise FileNotFoundError(
                f"No clips of split {split!r} in {folder}. Render them with stretto_shared.training.corpus."
            )

    def __len__(self) -> int:
        return len(self._records)

    def clip(self, index: int) -> NDArray[np.int16]:
        """The samples of a clip, int16 [S] at 24 kHz mono, not copied from the file."""
        shard, row = self._places[index]
        samples: NDArray[np.int16] = self._arrays[shard][row]
        return samples

    def record(self, index: int) -> ClipRecord:
        """The attributes and captions of a clip."""
        return self._records[index]
