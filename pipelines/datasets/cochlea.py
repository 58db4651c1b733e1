"""`spikeloom data cochlea in=WAVDIR out=FILE.h5`: wavs to spike trains, in the layout of SHD and SSC."""

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from spikeloom.pipelines.config.data import DataConfig
from spikeloom.pipelines.training.runtime import at_once, watch
from spikeloom.speech.features.cochlea.convert import convert, read_recordings

log = logging.getLogger("spikeloom")


def run(config: DataConfig) -> None:
    if not config.root:
        raise ValueError("data cochlea needs a folder of wavs; add in=FOLDER")
    out = Path(config.out)
    if out.suffix not in (".h5", ".hdf5"):
        raise ValueError(f"data cochlea writes an HDF5 file, got out={out}; use out=FILE.h5")
    utterances = read_recordings(config.root)
    log.info("%d clips of %d classes from %s", len(utterances), len(utterances.class_names), config.root)

    def watched(batches: Sequence[int]) -> Iterable[int]:
        return watch(batches, "converting")

    start = time.perf_counter()
    n_events = convert(
        utterances, config.cochlea, out, time_dtype=config.time_dtype, batch_size=config.batch_size,
        processes=config.processes or at_once(), watch=watched,
    )  # fmt: skip
    took = time.perf_counter() - start
    log.info("%d events, %.0f a clip, in %.1f s -> %s", n_events, n_events / len(utterances), took, out)
