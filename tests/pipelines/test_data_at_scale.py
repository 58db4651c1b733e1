"""Large data sets: memory does not grow with what the samples hold, and work that was split or killed gives the same
bytes."""

import gc
import io
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import soundfile
from PIL import Image

from spikeloom.bci.data.trials import read_splits
from spikeloom.bci.zuco import cache as zuco_cache
from spikeloom.bci.zuco.samples import SamplesConfig
from spikeloom.bci.zuco.source import ZuCoConfig
from spikeloom.bci.zuco.splits import SplitConfig
from spikeloom.pipelines import cli
from spikeloom.speech.datamodule import SpeechDataModule
from spikeloom.speech.datasets.shd import SSCConfig
from spikeloom.speech.features.cochlea import convert as cochlea
from spikeloom.speech.features.event_bins import EventBinsConfig
from spikeloom.vision.datamodule import VisionDataModule
from spikeloom.vision.datasets import frame_cache
from spikeloom.vision.datasets.sources import ImageFoldersConfig
from spikeloom.vision.transforms.frames import PixelsConfig
from tests.vision.event_files import write_nmnist
from tests.vision.test_tar_shards import write_tar

# --- memory ---------------------------------------------------------------------------------------------------------

SIDE = 64  # px
SPIKES = 1500  # of a clip
ROWS, WORDS = 4, 8  # of a reader, of a sentence


def write_clips(root: Path, n: int) -> None:
    """Spiking Speech Commands, the same clip each time."""
    rng = np.random.default_rng(0)
    times, units = np.sort(rng.random(SPIKES)).astype(np.float16), rng.integers(0, 700, SPIKES).astype(np.uint16)
    for split, size in (("train", n), ("valid", 70), ("test", 70)):
        with h5py.File(root / f"ssc_{split}.h5", "w") as file:
            for name, row in (("spikes/times", times), ("spikes/units", units)):
                made = file.create_dataset(name, (size,), h5py.vlen_dtype(row.dtype))
                for i in range(size):
                    made[i] = row
            file["labels"], file["extra/speaker"] = np.arange(size) % 35, np.arange(size) % 7
            file["extra/keys"] = np.array([f"word{i}".encode() for i in range(35)])


def read_clips(root: Path) -> Iterator[Any]:
    data = SpeechDataModule(SSCConfig(root=str(root)), EventBinsConfig(), batch_size=16, cache_mb=0.1)
    data.setup()
    return iter(data.train_dataloader())


def write_pictures(root: Path, n: int, tar: bool = False) -> None:
    """The layout of ImageNet: class folders, or a tar file for each class."""
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(content, "BMP")
    for split, size in (("train", n), ("val", 20)):
        for label in range(10):
            name = f"n{label:08d}"
            files = {f"{name}_{i}.bmp": content.getvalue() for i in range(size // 10)}
            if tar:
                write_tar(root / split / f"{name}.tar", files)
                continue
            (root / split / name).mkdir(parents=True)
            for file in files:
                (root / split / name / file).write_bytes(content.getvalue())


def read_pictures(root: Path) -> Iterator[Any]:
    source = ImageFoldersConfig(root=str(root), valid_per_class=1)
    data = VisionDataModule(source, PixelsConfig(size=SIDE), batch_size=16, cache_mb=0.1)
    data.setup()
    return iter(data.train_dataloader())


def write_sentences(root: Path, n: int) -> None:
    """Readers of ZuCo, four sentences each, with their caches; all of the same bytes."""
    lines = root / "lines.txt"
    lines.write_text("\n".join(f"{' '.join(['word'] * WORDS)} {i}" for i in range(ROWS)), encoding="utf-8")
    cli.main(["data", "synthesize", "dataset=zuco", "tasks=[NR1]", "subjects=1", f"sentences={ROWS}", "missing=0",
              f"text={lines}", f"out={root}/files"])  # fmt: skip
    (first,) = root.rglob("results*.mat")
    for number in range(2, n // ROWS + 1):
        first.with_name(f"resultsZ{number:02d}_NR.mat").hardlink_to(first)
    cli.main(["data", "cache", "dataset=zuco", f"root={root}", f"out={root}/.spikeloom"])


def read_sentences(root: Path) -> Iterator[Any]:
    split = SplitConfig(unit="key", valid=0.25, test=0.25)
    splits = read_splits(ZuCoConfig(root=str(root)).build(), SamplesConfig().build(), split)
    return (trials.padded([row]) for trials in splits.sets.values() for row in range(len(trials)))


CASES: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], Iterator[Any]], int, int]] = {
    # write, read, samples of the smaller set, bytes that a sample holds
    "clips of spikes": (write_clips, read_clips, 60, 16 * SPIKES),
    "class folders": (write_pictures, read_pictures, 100, 3 * SIDE**2),
    "tar files": (partial(write_pictures, tar=True), read_pictures, 100, 3 * SIDE**2),
    "EEG of sentences": (write_sentences, read_sentences, 3 * ROWS, 6 * 8 * 840 * WORDS),
}


def peak_bytes(read: Callable[[Path], Iterator[Any]], root: Path) -> int:
    """The most memory that going through a set once takes, lists of samples included: the less of two times, since
    whatever is imported meanwhile counts, too."""
    peaks = []
    for _ in range(2):
        gc.collect()
        tracemalloc.start()
        try:
            for _batch in read(root):
                pass
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "tar files")) for n in CASES])
def test_memory_does_not_grow_with_what_the_samples_hold(name: str, tmp_path: Path) -> None:
    write, read, n, sample_bytes = CASES[name]
    peaks = []
    for size in (n, 4 * n):
        (root := tmp_path / str(size)).mkdir()
        write(root, size)
        peaks.append(peak_bytes(read, root))
    assert (peaks[1] - peaks[0]) / (3 * n) < sample_bytes / 12


# --- processes and kills --------------------------------------------------------------------------------------------


def write_words(root: Path) -> None:
    root.mkdir()
    rng = np.random.default_rng(0)
    for word in range(2):
        for speaker in ("ann", "bob"):
            for take in range(3):
                sound = 0.1 * rng.standard_normal(400 + 40 * take)
                soundfile.write(root / f"{word}_{speaker}_{take}.wav", sound, 8000)


def write_readers(root: Path) -> None:
    lines = root.with_suffix(".txt")
    lines.write_text("\n".join(f"Film number {i} was good." for i in range(2)), encoding="utf-8")
    cli.main(["data", "synthesize", "dataset=zuco", "tasks=[SR1,NR1,NR2]", "subjects=1", "sentences=2",
              f"out={root}", f"text={lines}"])  # fmt: skip


# what is made -> how its input is written, the command line but for root and out, where the results lie
MADE: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "spikes of a cochlea": (write_words, ["data", "cochlea", "batch_size=4"], "spikes.h5"),
    "rows of ZuCo": (write_readers, ["data", "cache", "dataset=zuco"], "kept"),
    "frames of events": (
        lambda root: write_nmnist(root, 5, 1),
        ["data", "cache", "dataset=nmnist", "features=frames", "features.n_frames=4"], "kept",
    ),
}  # fmt: skip


def make(name: str, given: Path, out: Path, *keys: str) -> dict[str, bytes]:
    """The files that a command leaves, by their names."""
    _, line, result = MADE[name]
    cli.main([*line, f"root={given}", f"out={out / result}", *keys])
    return {str(f.relative_to(out)): f.read_bytes() for f in sorted(out.rglob("*")) if f.is_file()}


@pytest.mark.parametrize("name", MADE)
def test_two_processes_and_a_killed_one_leave_the_bytes_of_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MADE[name][0](given := tmp_path / "given")
    alone = make(name, given, tmp_path / "alone", "processes=1")
    assert len(alone) == {"spikes of a cochlea": 1, "rows of ZuCo": 3}.get(name, 60 + 3)
    assert make(name, given, tmp_path / "two", "processes=2") == alone

    begun: list[int] = []  # work that was not there yet

    def killed(of: Callable[..., Any], after: int) -> Callable[..., Any]:
        def work(*arguments: Any, **keys: Any) -> Any:
            begun.append(1)
            if len(begun) > after:
                raise KeyboardInterrupt
            return of(*arguments, **keys)

        return work

    work = {"spikes of a cochlea": (cochlea.Cochlea, "__call__"), "rows of ZuCo": (zuco_cache, "read_sentences"),
            "frames of events": (frame_cache.FrameCache, "_make")}[name]  # fmt: skip
    whole = getattr(*work)
    monkeypatch.setattr(*work, killed(whole, 2))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        make(name, given, tmp_path / "killed", "processes=1")
    begun.clear()
    monkeypatch.setattr(*work, killed(whole, 1000))
    assert make(name, given, tmp_path / "killed", "processes=1") == alone
    assert len(begun) == {"spikes of a cochlea": 1, "rows of ZuCo": 1}.get(name, 58), "what was done is not done again"
    begun.clear()
    if name != "spikes of a cochlea":
        assert make(name, given, tmp_path / "killed", "processes=1") == alone and not begun


def test_a_recording_that_changed_is_converted_again(tmp_path: Path) -> None:
    write_words(tmp_path / "given")
    utterances = cochlea.read_recordings(tmp_path / "given")

    def stop(batches: Any) -> Iterator[int]:
        yield 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cochlea.convert(utterances, cochlea.CochleaConfig(), tmp_path / "spikes.h5", batch_size=4, watch=stop)
    assert len(list((tmp_path / ".spikes.h5.parts").iterdir())) == 2
    soundfile.write(tmp_path / "given" / "0_ann_0.wav", 0.1 * np.sin(np.arange(700)), 8000)
    for out in ("spikes.h5", "anew.h5"):
        cochlea.convert(utterances, cochlea.CochleaConfig(), tmp_path / out, batch_size=4)
    assert (tmp_path / "spikes.h5").read_bytes() == (tmp_path / "anew.h5").read_bytes()
    assert not (tmp_path / ".spikes.h5.parts").exists()


def test_check_finds_the_same_with_several_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_words(tmp_path / "words")
    (tmp_path / "words" / "1_bob_1.wav").write_bytes(b"RIFF")
    write_pictures(tmp_path, 100)
    (tmp_path / "train" / "n00000003" / "n00000003_1.bmp").write_bytes(b"BM")
    for dataset, root in (("fsdd", tmp_path / "words"), ("imagenet", tmp_path)):
        printed = []
        for processes in (1, 2):
            with pytest.raises(SystemExit, match="1"):
                cli.main(["data", "check", f"dataset={dataset}", f"root={root}", f"processes={processes}"])
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1] and printed[0].count("problem: ") == 1


def test_pictures_have_no_frames_to_keep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["data", "cache", "dataset=digits", "features=digits", f"out={tmp_path / 'kept'}"])
    assert "frames of event recordings" in capsys.readouterr().err
