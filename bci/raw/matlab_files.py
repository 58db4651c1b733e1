"""Whole variables of MATLAB files as plain values, and back: for files that fit into memory.

A value is as in `bci.zuco.matlab5`: array, str, list of values (cell), list of dicts (struct array). Result files of
ZuCo do not fit; `bci.zuco.reader` walks over them.
"""

from pathlib import Path
from typing import Any

import numpy as np

from bci.zuco import hdf5
from bci.zuco.reader import file_format


def read_variable(path: Path, name: str) -> Any:
    """Raises ValueError naming the file when it has no such variable or is damaged."""
    if file_format(path) == "hdf5":
        return hdf5.variable(path, name)
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(path, variable_names=[name], chars_as_strings=True)
    except (MatReadError, ValueError, OSError, TypeError, KeyError, IndexError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); copy it again") from error
    if name not in found:
        raise ValueError(f"{path} holds no {name}; use a file as published")
    return _plain(found[name])


def _plain(value: Any) -> Any:
    if value.dtype.names:
        return [{name: _plain(element[name]) for name in value.dtype.names} for element in value.ravel(order="F")]
    if value.dtype == object:
        return [_plain(entry) for entry in value.ravel(order="F")]
    if value.dtype.kind == "U":
        return str(value.ravel()[0]) if value.size else ""
    return value


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
