"""Trials from files are those of the set that wrote them; splits keep sentences apart; batches follow the epoch."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from spikeloom.accel.common.batches import BatchIndex, EpochBatches
from spikeloom.bci.data.datamodule import EncodedTrials, TextConfig
from spikeloom.bci.data.tokenizer import PAD
from spikeloom.bci.data.trials import read_splits
from spikeloom.bci.synthetic.zuco import SyntheticZuCo, SyntheticZuCoConfig
from spikeloom.bci.zuco.samples import SamplesConfig
from spikeloom.bci.zuco.source import ZuCoConfig, rows_of
from spikeloom.bci.zuco.splits import SplitConfig
from spikeloom.bci.zuco.write_matlab5 import write_matlab5

BY_KEY = SplitConfig(unit="key", valid=0.2, test=0.2)


def synthetic(**changes: object) -> SyntheticZuCo:
    return SyntheticZuCoConfig(n_subjects=2, n_sentences=20, **changes).build()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    source = synthetic(missing=0.1)
    for recording in source.recordings:
        path = tmp_path / f"results{recording.subject}_{recording.task}.mat"
        write_matlab5(path, list(source.read(recording)))
    return tmp_path


def test_files_give_the_readings_of_the_set_that_wrote_them(files):
    source, samples = synthetic(missing=0.1), SamplesConfig().build()
    read = ZuCoConfig(root=str(files)).build()
    assert sorted(rows_of(read)) == sorted(rows_of(source))
    ours, theirs = (read_splits(one, samples, BY_KEY) for one in (source, read))
    assert ours.dropped == theirs.dropped and ours.dropped["missing"] > 0
    for name in ("train", "valid", "test"):
        a, b = ours[name], theirs[name]
        assert (a.texts, a.subjects, a.tasks) == (b.texts, b.subjects, b.tasks)
        assert all(np.allclose(x, y, atol=1e-6) for x, y in zip(a.eeg, b.eeg, strict=True))
        assert all(np.allclose(x, y, atol=1e-6) for x, y in zip(a.gaze, b.gaze, strict=True))


def test_unknown_tasks_subjects_and_folders_are_named(files):
    with pytest.raises(ValueError, match=r"no recording of tasks \['NR2'\]; use some of \['SR1'\]"):
        ZuCoConfig(root=str(files), tasks=["NR2"]).build()
    with pytest.raises(ValueError, match=r"no recording of subjects"):
        ZuCoConfig(root=str(files), subjects=["ZZZ"]).build()
    with pytest.raises(ValueError, match="is no folder; get results"):
        ZuCoConfig(root=str(files / "nowhere")).build()
    assert ZuCoConfig(root=str(files), subjects=["Z02"]).build().recordings[0].subject == "Z02"


def test_a_split_keeps_sentences_apart_and_unwanted_splits_out_of_memory():
    trials = read_splits(synthetic(), SamplesConfig().build(), BY_KEY, ("train", "valid"))
    assert set(trials.sets) == {"train", "valid"}
    assert not set(trials["train"].keys) & set(trials["valid"].keys)
    assert Counter(trials["valid"].keys).most_common(1)[0][1] == 2  # both readers
    assert all(len(g) == len(e) for g, e in zip(trials["train"].gaze, trials["train"].eeg, strict=True))


def test_batches_depend_on_seed_and_epoch_alone():
    def of(sampler):
        return [index.sample_ids.tolist() for index in sampler]

    rows = EpochBatches(10, 4, seed=3, shuffle=True, drop_last=True)
    first = of(rows)
    rows.set_epoch(1)
    second = of(rows)
    rows.set_epoch(0)
    assert of(rows) == first != second and [len(part) for part in first] == [4, 4]
    assert [len(part) for part in of(EpochBatches(10, 4, seed=3, shuffle=False))] == [4, 4, 2]
    with pytest.raises(ValueError, match=r"batch_size=16 does not fit 10 samples"):
        EpochBatches(10, 16, seed=0, shuffle=True, drop_last=True)


def test_a_batch_is_as_long_as_its_longest_reading_and_text():
    trials = read_splits(synthetic(), SamplesConfig().build(), BY_KEY)
    tokenizer = TextConfig(vocab_size=400).build(trials["train"].texts)
    encoded = EncodedTrials(trials["test"], tokenizer, 58)
    batch = encoded[BatchIndex(0, torch.tensor([0, 1, 2]))]
    assert batch.mask.sum(0).tolist() == trials["test"].lengths[:3] and bool(batch.mask.any(1).all())
    assert bool((batch.ids != PAD).any(1).all())
    assert tokenizer.decode(batch.ids) == list(trials["test"].texts[:3])
    assert sum(len(part.sentence) for part in encoded.batches(3)) == len(encoded)
