"""Sentences as a ZuCo version 1 file: MATLAB level 5."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.accel.common.files import whole
from spikeloom.bci.zuco.layout import VARIABLE, Cell, Struct, Value, sentence_data
from spikeloom.bci.zuco.records import Sentence


def write_matlab5(path: Path, sentences: Sequence[Sentence]) -> None:
    """Write the sentences of one recording; a file that stands at `path` is replaced."""
    import scipy.io

    content = {VARIABLE: _encode(sentence_data(sentences))}
    with whole(path) as partial:
        scipy.io.savemat(partial, content, appendmat=False, long_field_names=True, oned_as="row")


def _encode(value: Value) -> Any:
    if isinstance(value, Struct):
        fields = list(value.elements[0])
        array = np.empty((1, len(value.elements)), dtype=[(name, object) for name in fields])
        for n, element in enumerate(value.elements):
            for name in fields:
                array[name][0, n] = _encode(element[name])
        return array
    if isinstance(value, Cell):
        cells = np.empty((1, len(value.values)), dtype=object)
        for n, inner in enumerate(value.values):
            cells[0, n] = _encode(inner)
        return cells
    return value
