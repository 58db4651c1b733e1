"""The shared collection of files that once did harm (cases/hostile beside the data): a right result, or one line."""

import os
import tempfile
from functools import cache
from pathlib import Path

import pytest

from tests.fuzz.batch import GOOD, mutants, run, whole_cases
from tests.fuzz.parser import Case
from tests.fuzz.table import PARSERS

FOLDER = Path(os.environ.get("SPIKELOOM_DATA", "")).parent / "cases" / "hostile"
# Folder of the collection -> parser, and the file that the damaged one takes the place of; "": all files of the case.
KINDS = {
    "aedat4": ("aedat4", ""), "bsmodel": ("stochastic_network", "config.json"), "chips": ("chip_yaml", ""),
    "cuts": ("dvs_gesture_tables", "user01_led_labels.csv"), "eyelink": ("eyelink", ""), "fif": ("fif", ""),
    "mat5": ("zuco_matlab5", ""), "matvar": ("matlab5_variable", ""), "nir": ("nir", ""), "nmnist": ("nmnist", ""),
    "runconfig": ("run_config", "config.yaml"), "set": ("eeglab", ""), "shd": ("spike_hdf5", ""),
    "vhdr": ("brainvision", "x.vhdr"), "workload": ("workload_json", ""), "zcache": ("zuco_cache", ""),
}  # fmt: skip
BY_CONTENT = {  # of files called mutated.bin: folder, how they begin -> as above
    ("modeldir", b'{"attn'): ("model_folder_speech", "model/config.json"),
    ("modeldir", b'{"class'): ("model_folder_speech", "model/preprocessor_config.json"),
    ("split", b"key,"): ("split_folder", "keys.csv"),
    ("split", b"{"): ("split_folder", "split.json"),
}
CASES = sorted(f.relative_to(FOLDER).as_posix() for f in FOLDER.rglob("*") if f.is_file()) if FOLDER.is_dir() else []


@cache
def first_whole(parser: str) -> Case:
    with tempfile.TemporaryDirectory() as folder:
        return whole_cases(PARSERS[parser], Path(folder) / "whole")[0]


def damaged(file: Path) -> tuple[str, Case]:
    """The parser of a file of the collection, and the case that it makes."""
    content, kind = file.read_bytes(), file.parent.name
    by_content = (value for (k, begin), value in BY_CONTENT.items() if k == kind and content.startswith(begin))
    name, replaced = KINDS.get(kind) or next(by_content)
    whole = first_whole(name)
    if replaced:
        assert replaced in whole
        return name, {**whole, replaced: content}
    (only,) = whole
    return name, {only: content}


@pytest.mark.skipif(not CASES, reason=f"no folder {FOLDER}; it lies beside $SPIKELOOM_DATA")
@pytest.mark.parametrize("name", CASES)
def test_a_file_that_once_did_harm_is_right_or_one_line(name: str, tmp_path: Path) -> None:
    parser, case = damaged(FOLDER / name)
    counts = run(PARSERS[parser], [case].__getitem__, 1, 300, tmp_path)
    told = [f.read_text("utf-8") for f in sorted(tmp_path.rglob("*.txt"))]
    assert sum(counts.outcomes[outcome] for outcome in GOOD) == 1, told


def test_neighbours_of_a_case_are_reached_by_the_mutations(tmp_path: Path) -> None:
    """The inputs of `make fuzz` change the same files that the collection has damaged."""
    for name, replaced in {*KINDS.values(), *BY_CONTENT.values()}:
        cases = whole_cases(PARSERS[name], tmp_path / f"{name} {Path(replaced).name}")
        make = mutants(PARSERS[name], cases)
        changed = {file for i in range(40) for file, held in make(i).items() if all(c.get(file) != held for c in cases)}
        assert not replaced or replaced in changed, f"{name} never changes {replaced}"
