"""No reader of HDF5 opens another file than the one that it was given, whatever links and data sets it holds."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from spikeloom.accel.interop.nir_network import read_nir
from spikeloom.bci.raw.matlab_files import read_variable
from spikeloom.bci.zuco.reader import read_sentences
from spikeloom.speech.datasets.spike_files import read_spike_file
from spikeloom.vision.datasets.readers import read_events
from tests.fuzz.chip import nir_files
from tests.fuzz.speech import spike_files
from tests.fuzz.vision import event_hdf5
from tests.fuzz.zuco import result_files, variables

# Reader -> its whole files, a data set and a group that it reads, and the reader.
READERS: dict[str, tuple[Callable[[Path], None], str, str, Callable[[Path], Any]]] = {
    "events": (lambda folder: (folder / "0.h5").write_bytes(event_hdf5()[0]) and None, "events/t", "events",
               read_events),
    "spikes": (spike_files, "labels", "spikes", read_spike_file),
    "nir": (nir_files, "node/nodes/{0}/weight", "node/nodes/{0}", read_nir),
    "results": (result_files("7.3"), "sentenceData/content", "sentenceData", lambda path: list(read_sentences(path))),
    "variable": (variables("7.3"), "v/a", "v", lambda path: read_variable(path, "v")),
}  # fmt: skip


@cache
def whole(name: str) -> tuple[str, bytes]:
    """The first whole file of a reader: its name and what it holds."""
    with tempfile.TemporaryDirectory() as folder:
        READERS[name][0](Path(folder))
        path = next(path for path in sorted(Path(folder).rglob("*")) if path.is_file())
        return path.name, path.read_bytes()


def place(file: h5py.File, template: str) -> str:
    """The data set or group of the name; of a network, in its first layer with weights."""
    if "{0}" not in template:
        return template
    return template.format(next(name for name, node in file["node/nodes"].items() if "weight" in node))


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("how", ["link to a data set", "link to a group", "stored outside", "virtual"])
def test_what_lies_in_another_file_is_refused(name: str, how: str, tmp_path: Path) -> None:
    _, dataset, group, read = READERS[name]
    file_name, content = whole(name)
    path = tmp_path / file_name
    path.write_bytes(content)
    read(path)
    other = tmp_path / "other"
    other.write_bytes(path.read_bytes())
    with h5py.File(path, "r+") as file:
        at = place(file, group if how == "link to a group" else dataset)
        held = file[at]
        if how == "stored outside":
            shape, kind = held.shape, np.dtype("u1")
            del file[at]
            size = int(np.prod(shape)) * kind.itemsize
            file.create_dataset(at, shape, kind, external=[(str(other), 0, size)])
        elif how == "virtual":
            shape, kind = held.shape or (1,), np.dtype("f4")
            del file[at]
            layout = h5py.VirtualLayout(shape, kind)
            layout[...] = h5py.VirtualSource(str(other), at, shape, kind)
            file.create_virtual_dataset(at, layout)
        else:
            del file[at]
            file[at] = h5py.ExternalLink(str(other), f"/{at}")
    with pytest.raises(ValueError, match=rf"{path.name}.*(lies? in (an)?other files?|is a link to another place)"):
        read(path)
