"""The verbs on ZuCo files work on what `synthesize` writes, in the layout and formats of the published ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from spikeloom.bci.raw.eyelink import read_eyelink
from spikeloom.bci.raw.recordings import NetEEG
from spikeloom.bci.synthetic.zuco import SyntheticZuCoConfig
from spikeloom.bci.zuco.records import BLOCKS, SUBJECTS
from spikeloom.bci.zuco.splits import load_split
from spikeloom.bci.zuco.write_matlab5 import write_matlab5
from spikeloom.pipelines.commands import data
from spikeloom.pipelines.config.data import DataConfig
from spikeloom.pipelines.config.register import register
from spikeloom.pipelines.datasets.eeg import fixation_pieces
from tests.conftest import data_folder

MADE = DataConfig(what="synthesize", dataset="zuco", tasks=["SR1", "NR2"], subjects=1, sentences=10, missing=0.1,
                  rejected=0.01, seed=3)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("zuco") / "set"
    lines = root.with_name("lines.txt")
    lines.write_text("\n".join(f"Film number {i} by Bôcher - it was good." for i in range(10)), encoding="utf-8")
    data.run(replace(MADE, out=str(root), text=str(lines)))
    return root


def test_files_are_laid_out_and_stored_as_published(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = sorted(path.relative_to(made).as_posix() for path in made.rglob("*.mat"))
    assert names == [
        "zuco1/task-SR/Matlab_files/resultsZ01_SR.mat",
        "zuco2/task-NR/Matlab_files/resultsY01_NR.mat",
    ]
    assert (made / names[0]).read_bytes().startswith(b"MATLAB 5.0")
    assert (made / names[-1]).read_bytes().startswith(b"MATLAB 7.3")
    assert json.loads((made / "synthetic.json").read_text())["strength"] == 1.0
    data.run(DataConfig(what="check", dataset="zuco", root=str(made), out=str(made / "q.csv")))
    printed = capsys.readouterr().out
    assert "no problem found" in printed and "resultsY01_NR.mat      hdf5" in printed
    assert "10 rows, as published 400: not a whole recording" in printed
    assert "sentences with letters beyond a-z" in printed and "a lone dash" in printed
    assert len((made / "q.csv").read_text("utf-8").split("\n")) == 4


def test_a_damaged_file_is_a_problem_and_the_others_are_checked(made: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    (path,) = made.rglob("*Z01*.mat")
    content = path.read_bytes()
    (tmp_path / path.name).write_bytes(content[: len(content) // 2])
    (tmp_path / "resultsZ02_SR.mat").write_bytes(content)
    with pytest.raises(SystemExit, match="1"):
        data.run(DataConfig(what="check", dataset="zuco", root=str(tmp_path)))
    printed = capsys.readouterr().out
    assert "resultsZ02_SR.mat" in printed and "problem:" in printed and "resultsZ01_SR.mat is damaged" in printed


def test_rows_of_a_faulty_export_are_no_clean_bill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = SyntheticZuCoConfig(task="NR", n_subjects=1, n_sentences=3, seed=0).build()
    rows = list(source.read(source.recordings[0]))
    rows[1] = replace(rows[1], content="")
    write_matlab5(tmp_path / f"results{rows[0].subject}_NR.mat", rows)
    data.run(DataConfig(what="check", dataset="zuco", root=str(tmp_path)))
    printed = capsys.readouterr().out
    assert "1 rows are not as a reader leaves them (no text 1)" in printed and "no problem found" not in printed


def test_missing_recordings_say_where_to_get_and_put_them(tmp_path: Path) -> None:
    for what in ("check", "describe", "cache", "features"):
        with pytest.raises(ValueError, match=r"holds no results.*osf\.io/q3zws.*osf\.io/2urht.*put the folders there"):
            data.run(DataConfig(what=what, dataset="zuco", root=str(tmp_path), out=str(tmp_path / "out")))


def test_a_page_describes_the_recordings(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "zuco.html"
    data.run(DataConfig(what="describe", dataset="zuco", root=str(made), out=str(out)))
    page = out.read_text("utf-8")
    for title in ("What is in the recordings", "How many words each reader skips", "Where each rhythm is strong",
                  "Sentences on both sides", "Configuration and seeds"):  # fmt: skip
        assert title in page
    assert 'src="http' not in page


def test_a_split_is_stored_and_read_back(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = DataConfig(what="split", dataset="zuco", root=str(made), out=str(tmp_path))
    config.split.unit = "key"
    data.run(config)
    split = load_split(tmp_path)
    assert len(split.keys) == 10 and sum(split.counts.values()) == 20 and split.counts["test"] == 2
    assert "0 sentences on both sides" in capsys.readouterr().out
    config.split.test = 0.01
    with pytest.raises(ValueError, match="10 different sentences are too few: test would be empty"):
        data.run(config)


@pytest.mark.slow
def test_materials_are_split_where_there_are_no_recordings(tmp_path: Path) -> None:
    data.run(DataConfig(what="split", dataset="zuco", root=str(data_folder("zuco")), out=str(tmp_path)))
    split = load_split(tmp_path)
    rows = sum(sum(sizes) * len(SUBJECTS[version]) for (version, _), sizes in BLOCKS.items())
    assert sum(split.counts.values()) == rows == 26_586


def test_caches_reopen_ten_times_faster(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.run(DataConfig(what="cache", dataset="zuco", root=str(made), out=str(tmp_path)))
    total = capsys.readouterr().out.strip().split("\n")[-1]
    assert "20 rows" in total and float(total.split("; ")[1].split(" ")[0]) >= 10
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_features_and_bids_come_from_continuous_recordings(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    root = tmp_path / "raw"
    data.run(replace(MADE, tasks=["NR1"], subjects=1, sentences=2, raw=True, rejected=0.0, missing=0.0, text=None,
                     out=str(root)))  # fmt: skip
    assert len(list(root.rglob("Raw_data/Z01/*.mat"))) == 2
    capsys.readouterr()
    data.run(DataConfig(what="features", dataset="zuco", root=str(root)))
    error = float(capsys.readouterr().out.strip().split(" ")[-1])
    assert error <= 1e-3
    data.run(DataConfig(what="epochs", dataset="zuco", root=str(root), out=str(tmp_path / "epochs"), epoch="sentence"))
    assert len(list((tmp_path / "epochs").glob("Z01_*_sentence-epo.fif"))) == 1
    pytest.importorskip("mne_bids", reason="mne-bids is not installed: pip install 'spikeloom[bids]'")
    data.run(DataConfig(what="bids", dataset="zuco", root=str(root), out=str(tmp_path / "bids")))
    described = json.loads((tmp_path / "bids" / "dataset_description.json").read_text())
    assert described["Synthetic"] is True and described["Generator"]["seed"] == 3


def test_every_recording_of_another_system_is_told_and_measured(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    import mne

    rng = np.random.default_rng(0)
    info = mne.create_info(["Fp1", "Fp2", "C3", "C4", "Cz", "O1", "O2", "Pz", "Fz"], 500.0, "eeg")
    mne.io.RawArray(1e-5 * rng.standard_normal((9, 3000)), info, verbose="error").save(tmp_path / "x_raw.fif",
                                                                                      verbose="error")  # fmt: skip
    data.run(DataConfig(what="check", dataset="eeg", root=str(tmp_path)))
    assert "9 electrodes interpolated to 105" in capsys.readouterr().out
    config = DataConfig(what="features", dataset="eeg", root=str(tmp_path / "x_raw.fif"), out=str(tmp_path / "f.npz"))
    data.run(config)
    found = np.load(tmp_path / "f.npz")
    assert found["amplitudes_uv"].shape == (11, 840) and found["names"][0] == "t1_E2"
    with pytest.raises(ValueError, match=r"use out=FILE\.npz"):
        data.run(replace(config, out="f.html"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ["SR2"]}, "tasks=SR2 is unknown"),
        ({"format": "csv"}, "format=csv is unknown"),
        ({"sentences": 0}, "sentences=0"),
        ({"strength": -1.0}, "signal_strength is -1.0"),
        ({"out": "x.html"}, "use out=FOLDER"),
        ({"dataset": "fsdd"}, "is for dataset=zuco"),
        ({"text": "/no/such"}, "/no/such is missing; give a file"),
    ],
)
def test_what_cannot_be_made_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        data.run(replace(MADE, **{"out": str(tmp_path / "x"), **change}))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_readers(capsys: pytest.CaptureFixture[str]) -> None:
    from spikeloom.benchmarks.zuco import print_zuco

    print_zuco(30, bank=3)
    lines = capsys.readouterr().out.strip().split("\n")
    stages = {line[:36].strip(): line.split() for line in lines[1:-1]}
    assert int(stages["every row parsed and counted"][-4].replace(",", "")) >= 30
    assert "tokens" in lines[-1]
    with pytest.raises(ValueError, match="rows=0"):
        print_zuco(0)


def test_fixations_of_an_eye_tracker_meet_the_eeg_in_their_triggers() -> None:
    for asc in sorted(data_folder("eeg").rglob("*.asc")):
        gaze = read_eyelink(asc)
        if len(gaze.triggers) < 2:
            continue
        begin_ms, end_ms = gaze.samples[0, 0] - 2000, gaze.samples[-1, 0] + 2000
        events = tuple(((at - begin_ms) / 1000, str(number)) for at, number in gaze.triggers)
        net = NetEEG(eeg_uv=np.zeros((105, round((end_ms - begin_ms) / 2))), how="", events=events, measured=())
        found = fixation_pieces(net, gaze, asc.name)
        inside = (gaze.fixations[:, 0] >= begin_ms) & (gaze.fixations[:, 1] < end_ms)
        lasted = (gaze.fixations[:, 1] - gaze.fixations[:, 0]) / 2 + 1  # samples; the last one belongs to it
        expected = gaze.fixations[inside & (lasted >= 50)]
        np.testing.assert_allclose(found, (expected[:, :2] - begin_ms) / 2 + [0, 1], atol=1)
        with pytest.raises(ValueError, match="trigger 0 is 99 in the EEG"):
            fixation_pieces(replace(net, events=((0.0, "99"), *events[1:])), gaze, asc.name)


def composed(*overrides: str) -> Any:
    """The configuration the command line would hand to a training."""
    register()
    with initialize_config_module("spikeloom.conf", version_base="1.3"):
        return OmegaConf.to_object(compose("train", overrides=["run=unused", *overrides]))


@pytest.mark.parametrize(
    ("experiment", "lr", "epochs", "tasks"),
    [
        ("cet_mae_zuco", 1e-3, 40, []),
        ("cet_mae_zuco_full", 1e-4, 100, []),
        ("cet_mae_zuco_published", 5e-7, 100, ["SR1", "NR1", "NR2"]),
        ("e2t_ptr_zuco_full", 2e-5, 40, []),
        ("e2t_ptr_zuco_published", 2e-7, 50, ["SR1", "NR1", "NR2"]),
    ],
)
def test_recipes_pair_sizes_with_rates(experiment: str, lr: float, epochs: int, tasks: list[str]) -> None:
    found = composed(f"experiment={experiment}")
    assert (found.optimizer.lr, found.trainer.epochs, list(found.data.tasks)) == (lr, epochs, tasks)
    if "cet" in experiment:
        assert (found.model.sizes.text_width == 1024) == (experiment != "cet_mae_zuco")
    if experiment == "e2t_ptr_zuco_published":
        assert len(composed(f"experiment={experiment}", "data=zuco_5_tasks").data.tasks) == 5
