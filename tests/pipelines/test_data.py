"""`spikeloom data`: a whole data set passes, each fault is one line and a status of 1, a page shows every class."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spikeloom.pipelines import cli
from spikeloom.pipelines.commands import data
from spikeloom.pipelines.config.data import DataConfig
from spikeloom.pipelines.config.register import register
from spikeloom.speech.datasets import speech_commands as commands
from spikeloom.speech.datasets.splits import SpeakerSplit
from tests.conftest import data_folder
from tests.pipelines.small_data import write_commands, write_digits, write_spikes, write_twelve_classes

register()

DRAWN = True  # class names are read in the figures


def write_shd(root: Path) -> None:
    write_spikes(root / "shd_train.h5", 60, 5, 6)
    write_spikes(root / "shd_test.h5", 20, 5, 2, seed=1)


def check(dataset: str, root: Path | None) -> None:
    data.check(DataConfig(dataset=dataset, root=str(root) if root else None))


def problems(capsys: pytest.CaptureFixture[str], dataset: str, root: Path) -> list[str]:
    """The lines of a check that fails."""
    with pytest.raises(SystemExit) as stopped:
        check(dataset, root)
    assert stopped.value.code == 1
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem: ")]


def rows(text: str) -> dict[str, list[str]]:
    """First word of a line -> the others."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()}


def test_a_whole_archive_passes_with_its_counts(tmp_path, capsys) -> None:
    write_commands(tmp_path, takes=1)
    check("gsc35", tmp_path)
    out = capsys.readouterr().out
    assert rows(out)["clips"] == ["70", "35", "35", "140"]
    assert rows(out)["speakers"] == ["2", "1", "1", "4"]
    assert rows(out)["zero"] == ["2", "1", "1", "4"]
    assert "no problem found" in out
    check("gsc12", tmp_path)
    assert rows(capsys.readouterr().out)["_silence_"] == ["2", "1", "1", "4"]


def test_spikes_pass_with_their_counts_and_the_speakers_of_two_sets(tmp_path, capsys) -> None:
    write_shd(tmp_path)
    check("shd", tmp_path)
    out = capsys.readouterr().out
    assert rows(out)["clips"][2:] == ["20", "80"]
    assert "shd_train.h5" in out and "no published checksum" in out
    write_spikes(tmp_path / "own" / "a.h5", 60, 5, 6)
    check("spikes", tmp_path / "own")
    assert rows(capsys.readouterr().out)["speakers"] == ["4", "1", "1", "6"]


def test_every_unreadable_wav_is_one_line(tmp_path, capsys) -> None:
    write_twelve_classes(tmp_path / "twelve")
    bad = sorted((tmp_path / "twelve" / "go").iterdir())[:2]
    bad[0].write_bytes(bad[0].read_bytes()[:60])
    soundfile.write(bad[1], [], 16_000)
    lines = problems(capsys, "speech_commands", tmp_path / "twelve")
    assert [file.name in line for file, line in zip(bad, lines, strict=True)] == [True, True]
    write_digits(tmp_path / "digits")
    (tmp_path / "digits" / "0_ann_0.wav").write_bytes(b"")
    (line,) = problems(capsys, "fsdd", tmp_path / "digits")
    assert "0_ann_0.wav" in line


def test_every_unreadable_clip_of_spikes_is_one_line(tmp_path, capsys) -> None:
    import h5py

    write_shd(tmp_path)
    with h5py.File(tmp_path / "shd_test.h5", "r+") as file:
        for i in (3, 7):
            file["spikes/units"][i] = file["spikes/units"][i] + 700
    lines = problems(capsys, "shd", tmp_path)
    assert ["clip 3" in lines[0], "clip 7" in lines[1], len(lines)] == [True, True, 2]


def test_a_truncated_file_of_spikes_is_one_line(tmp_path, capsys) -> None:
    write_shd(tmp_path)
    (tmp_path / "shd_train.h5").write_bytes((tmp_path / "shd_train.h5").read_bytes()[:5000])
    (line,) = problems(capsys, "shd", tmp_path)
    assert "shd_train.h5: not a whole HDF5 file" in line


def test_a_file_with_another_checksum_is_a_problem(tmp_path, capsys, monkeypatch) -> None:
    write_commands(tmp_path, takes=1)
    archive = tmp_path / commands.ARCHIVE
    archive.write_bytes(b"half a download")
    (line,) = problems(capsys, "gsc35", tmp_path)
    assert commands.ARCHIVE in line and "sha256 differs" in line
    monkeypatch.setitem(data.CHECKSUMS, commands.ARCHIVE, f"md5:{hashlib.md5(archive.read_bytes()).hexdigest()}")
    check("gsc35", tmp_path)
    assert "md5 as published" in capsys.readouterr().out


def test_missing_data_are_one_line_that_says_where_to_get_them(tmp_path, capsys) -> None:
    for dataset, site in (("shd", "zenkelab.org"), ("gsc35", "speech_commands_v0.02.tar.gz"), ("fsdd", "github.com")):
        (line,) = problems(capsys, dataset, tmp_path / "nothing")
        assert site in line


def test_unknown_names_are_answered_with_the_known_ones(capsys) -> None:
    with pytest.raises(ValueError, match=r"use one of .*fsdd.*ssc"):
        check("sdh", None)
    with pytest.raises(ValueError, match="use check, describe"):
        data.run(DataConfig(what="chek", dataset="shd"))
    with pytest.raises(ValueError, match="leave root out"):
        check("synthetic", Path("here"))


@pytest.mark.parametrize(
    ("dataset", "write", "sections"),
    [("shd", write_shd, 4), ("speech_commands", write_twelve_classes, 3), ("fsdd", write_digits, 3)],
)
def test_a_page_shows_every_class_and_needs_no_network(tmp_path, dataset, write, sections) -> None:
    write(tmp_path / "data")
    page = tmp_path / "page.html"
    config = DataConfig(what="describe", dataset=dataset, root=str(tmp_path / "data"), out=str(page))
    data.describe(config)
    text = page.read_text("utf-8")
    splits = data.source_of(config).build()
    assert text.count("<section") == sections
    for name in splits.train.class_names:
        assert text.count(f">{name}<") >= 2 or (dataset == "shd" and f">{name} · " in text)
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text


def test_the_command_line_takes_the_action_as_a_word(tmp_path, capsys, monkeypatch) -> None:
    given = []
    monkeypatch.setattr(cli, "dispatch", lambda verb, options, overrides: given.append((verb, overrides)))
    cli.main(["data", "check", "dataset=fsdd", f"root={tmp_path}"])
    assert given == [("data", ["what=check", "dataset=fsdd", f"root={tmp_path}"])]


def test_keys_of_the_data_set_are_given_as_in_a_training(tmp_path, capsys, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    for word in ("ja", "nein"):
        for speaker in "abcde":
            (tmp_path / word).mkdir(exist_ok=True)
            soundfile.write(tmp_path / word / f"{speaker}_0.wav", 0.1 * rng.standard_normal(400), 16_000)
    sets = dict(zip("abcde", SpeakerSplit(folds=5).sets_of([(True, s) for s in "abcde"]), strict=True))
    tested, trained = (next(s for s in "abcde" if sets[s] == name) for name in ("testing", "training"))
    shutil.copy(tmp_path / "ja" / f"{tested}_0.wav", tmp_path / "ja" / f"{trained}_1.wav")
    pattern = 'data.pattern="(?P<speaker>[^_/]+)_"'
    given = []
    monkeypatch.setattr(cli, "dispatch", lambda verb, options, overrides: given.extend(overrides))
    cli.main(["data", "check", "dataset=words", f"data.root={tmp_path}", pattern])
    assert given == ["what=check", "dataset=words", f"settings=['data.root={tmp_path}','{pattern}']"]
    data.check(DataConfig(dataset="words", settings=[f"data.root={tmp_path}", pattern, "data.folds=5", "data.fold=0"]))
    printed = capsys.readouterr().out
    assert "speakers        3        1        1        5" in printed
    assert "1 recordings are in two sets" in printed
    with pytest.raises(ValueError, match=r"did you mean data\.pattern"):
        data.check(DataConfig(dataset="words", settings=["data.patern=a"]))


@pytest.mark.parametrize("dataset", ["fsdd", pytest.param("speech_commands", marks=pytest.mark.slow)])
def test_the_shared_recordings_are_whole(dataset, capsys) -> None:
    check(dataset, data_folder(dataset))
    assert "no problem found" in capsys.readouterr().out
