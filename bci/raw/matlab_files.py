"""Whole variables of MATLAB files as plain values, and back: for files that fit into memory.

A value is as in `bci.zuco.matlab5`: array, str, list of values (cell), list of dicts (struct array). Result files of
ZuCo do not fit; `spikeloom.bci.zuco.reader` walks over them.
"""

from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.bci.zuco import hdf5, matlab5
from spikeloom.bci.zuco.reader import file_format


def read_variable(path: Path, name: str) -> Any:
    """Raises ValueError naming the file when it has no such variable or is damaged."""
    if file_format(path) == "hdf5":
        return hdf5.variable(path, name)
    return matlab5.variable(path, name)


def write_variables(path: Path, variables: dict[str, Any]) -> None:
    """MATLAB 5. Lists of dicts become struct arrays, lists of str cells, dicts structs."""
    from scipy.io import savemat

    savemat(path, {name: _matlab(value) for name, value in variables.items()}, appendmat=False, oned_as="row")


def _matlab(value: Any) -> Any:
    if isinstance(value, dict):
        return _matlab([value])
    if isinstance(value, list) and value and isinstance(value[0], dict):
        array = np.empty((1, len(value)), dtype=[(name, object) for name in value[0]])
        for n, element in enumerate(value):
            for name, content in element.items():
                array[name][0, n] = _matlab(content)
        return array
    if isinstance(value, list):
        cells = np.empty((1, len(value)), dtype=object)
        cells[0] = value
        return cells
    return value
