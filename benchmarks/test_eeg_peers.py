"""Records of this library in braindecode and MOABB, fed as their users would: `pytest benchmarks/test_eeg_peers.py`.

Neither library is needed otherwise, and both pull in packages that break this environment: install them without
dependencies in an environment that also has spikeloom.
"""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from spikeloom.bci.raw.datasets import ReadingWindows, braindecode_windows, raws_by_subject
from spikeloom.bci.raw.record import Record
from spikeloom.bci.synthetic.recordings import SyntheticRecords
from spikeloom.bci.synthetic.zuco import SyntheticZuCo, SyntheticZuCoConfig
from spikeloom.bci.zuco.records import CHANNELS, N_CHANNELS, SAMPLING_HZ

ABSENT = "is not installed: pip install --no-deps {name} in an environment of its own"


@cache
def records() -> list[Record]:
    made = SyntheticRecords(SyntheticZuCo(SyntheticZuCoConfig(n_subjects=2, n_sentences=4, seed=4)))
    return [record for recording in made.synthetic.recordings for record in made.of(recording)]


@cache
def windows() -> ReadingWindows:
    return ReadingWindows(records(), target="subject")


def peer(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} {ABSENT.format(name=name)}", exc_type=ImportError)


def fitted(dataset: Any) -> np.ndarray:
    """Classes that an EEGNet of braindecode predicts after one epoch."""
    from braindecode import EEGClassifier
    from braindecode.models import EEGNet

    torch.manual_seed(0)
    model = EEGNet(n_chans=N_CHANNELS, n_outputs=2, n_times=windows()[0][0].shape[1])
    classifier = EEGClassifier(
        model, max_epochs=1, batch_size=16, train_split=None, classes=[0, 1], iterator_train__drop_last=True, verbose=0
    )
    classifier.fit(dataset, y=None)
    return np.asarray(classifier.predict(dataset))


def test_windows_are_a_dataset_of_braindecode_as_they_stand() -> None:
    peer("braindecode")
    from braindecode.datasets import BaseConcatDataset, create_from_X_y

    joined = BaseConcatDataset([windows()])
    x, y, place = joined[5]
    assert (y, place) == windows()[5][1:] and x.dtype == np.float32
    assert fitted(joined).shape == (len(windows()),)
    data, targets = windows().tensors(range(len(windows())))
    made = create_from_X_y(
        data.numpy(), targets.numpy(), drop_last_window=False, sfreq=SAMPLING_HZ, ch_names=list(CHANNELS)
    )
    assert len(made) == len(windows())
    np.testing.assert_allclose(made[5][0], windows()[5][0], rtol=1e-6)


def test_windows_of_braindecode_have_its_metadata_splits_and_positions() -> None:
    peer("braindecode")
    made = braindecode_windows(records(), target="subject")
    assert len(made) == len(windows())
    for k in (0, len(windows()) - 1):
        np.testing.assert_allclose(1e6 * made[k][0], windows()[k][0], rtol=1e-5, atol=1e-4)
        assert made[k][1] == windows().y[k]
    table = made.get_metadata()
    assert table["content"].tolist() == [row["content"] for row in windows().metadata]
    assert table["target"].tolist() == windows().y.tolist()
    parts = made.split("subject")
    assert {name: len(part) for name, part in parts.items()} == {
        name: sum(row["subject"] == name for row in windows().metadata) for name in ("Z01", "Z02")
    }
    assert np.isfinite(np.asarray(made.datasets[0].ch_pos)[: N_CHANNELS - 1]).all()
    assert fitted(made).shape == (len(windows()),)


def test_recordings_are_a_dataset_of_moabb() -> None:
    peer("moabb")
    from moabb.datasets.base import BaseDataset
    from moabb.paradigms import MotorImagery

    raws = raws_by_subject(records())
    every = [raw for sessions in raws.values() for runs in sessions.values() for raw in runs.values()]
    shown = sorted({str(name) for raw in every for name in raw.annotations.description if name.startswith("sentence/")})

    class SpikeloomReading(BaseDataset):
        def __init__(self) -> None:
            super().__init__(
                subjects=list(range(1, 1 + len(raws))), sessions_per_subject=1, code="SpikeloomReading",
                events={name: k for k, name in enumerate(shown, 1)}, interval=[0, 1], paradigm="imagery",
            )  # fmt: skip

        def _get_single_subject_data(self, subject: int) -> Any:
            return raws[list(raws)[subject - 1]]

        def data_path(self, *args: Any, **kwargs: Any) -> list[str]:
            return []

    paradigm = MotorImagery(events=shown, n_classes=len(shown), fmin=1, fmax=40, tmin=0.0, tmax=1.0)
    x, labels, about = paradigm.get_data(SpikeloomReading(), subjects=[1, 2])
    assert len(x) == len(labels) == sum(record_shown(raw) for raw in every) and x.shape[1] == N_CHANNELS
    assert set(labels) == set(shown) and set(about["session"]) == {"0SR"} and set(about["run"]) == {"0SNR1"}


def record_shown(raw: Any) -> int:
    return sum(str(name).startswith("sentence/") for name in raw.annotations.description)
