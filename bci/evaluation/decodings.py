"""Rows of decoders and the files that hold them, under one name."""

from pathlib import Path

from spikeloom.bci.evaluation.dumps import read_dump
from spikeloom.bci.evaluation.rows import UNKNOWN, Decodings, one_row_per_trial

__all__ = ["UNKNOWN", "Decodings", "one_row_per_trial", "read_pairs"]


def read_pairs(path: Path) -> Decodings:
    """The rows of a file of decoded text in any layout of `spikeloom.bci.evaluation.dumps`, which raises its errors."""
    return read_dump(path).decodings
