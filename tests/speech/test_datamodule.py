"""The data module: a clip's frames are its own, batches go by (seed, epoch), no clip is read before it is needed."""

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import soundfile
import torch

from spikeloom.accel.common.batches import BatchIndex, CacheBudget, EpochBatches
from spikeloom.accel.common.changes import changes
from spikeloom.speech.augmentation import AugmentationConfig
from spikeloom.speech.batches import SpeechBatch, featurise
from spikeloom.speech.datamodule import SpeechDataModule
from spikeloom.speech.datasets.clips import LazySequence
from spikeloom.speech.datasets.spike_trains import Events, SpikeTrains
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from spikeloom.speech.datasets.utterances import SpeechSplits
from spikeloom.speech.datasets.words import WordsConfig
from spikeloom.speech.features.event_bins import EventBinsConfig
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.spike_augmentation import SpikeAugmentationConfig


@functools.cache
def splits() -> SpeechSplits:
    return SyntheticConfig(n_words=2, n_speakers=5, takes=2, n_test_speakers=1, n_valid_speakers=1).build()


class Source:
    def build(self) -> SpeechSplits:
        return splits()


class ReadEvents(LazySequence[Events]):
    """Made-up clips of events that write down which of them were read."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.read_clips: list[int] = []

    def __len__(self) -> int:
        return self.n

    def read(self, index: int) -> Events:
        self.read_clips.append(index)
        rng = np.random.default_rng(index)
        return Events(np.sort(rng.random(200)) * (0.3 + 0.05 * index), rng.integers(0, 700, 200))


def spike_trains(n: int = 12) -> SpikeTrains:
    return SpikeTrains(
        events=ReadEvents(n), labels=np.arange(n) % 2, speakers=[str(i % 3) for i in range(n)],
        names=[f"clip{i}" for i in range(n)], class_names=("a", "b"),
    )  # fmt: skip


class SpikeSource:
    def build(self) -> SpeechSplits:
        return SpeechSplits(spike_trains(), spike_trains(4), spike_trains(5))


def speech_data(augmentation: AugmentationConfig | None = None, **settings: float) -> SpeechDataModule:
    data = SpeechDataModule(Source(), LogMelConfig.gsc(), augmentation, **{"batch_size": 5, **settings})  # type: ignore[arg-type]
    data.setup()
    return data


def spike_data(**settings: float) -> SpeechDataModule:
    given = {"batch_size": 5, **settings}
    data = SpeechDataModule(SpikeSource(), EventBinsConfig(), SpikeAugmentationConfig(), **given)  # type: ignore[arg-type]
    data.setup()
    return data


def test_what_a_batch_holds() -> None:
    data = speech_data()
    assert (data.n_inputs, data.n_classes, data.class_names) == (140, 2, ("yes", "no"))
    batches = list(data.val_dataloader())
    assert [len(batch.labels) for batch in batches] == [4]
    batch = batches[0]
    assert isinstance(batch, SpeechBatch)
    assert batch.features.dtype == torch.float32
    assert batch.lengths.dtype == batch.labels.dtype == batch.sample_ids.dtype == torch.int64
    assert batch.features.shape == (4, int(batch.lengths.max()), 140)
    utterances = data.splits.valid
    assert batch.sample_ids.tolist() == [0, 1, 2, 3]
    assert batch.labels.tolist() == utterances.labels.tolist()
    assert batch.lengths.tolist() == (1 + utterances.n_samples.clip(max=16_000) // 160).tolist()
    assert not batch.features[torch.arange(batch.features.shape[1]) >= batch.lengths[:, None]].any()


def test_features_of_a_batch_are_those_of_its_clips() -> None:
    data = speech_data()
    log_mel = LogMelConfig.gsc().build()
    for batch in data.train_dataloader():
        for row, sample in enumerate(batch.sample_ids.tolist()):
            waveform = torch.from_numpy(data.splits.train.waveforms[sample])[None]
            alone, length = log_mel(waveform, torch.tensor([waveform.shape[1]]))
            n = int(length)
            assert torch.equal(batch.features[row, :n], alone[0, :n])
            assert int(batch.labels[row]) == data.splits.train.labels[sample]


def order(loader: torch.utils.data.DataLoader, epoch: int) -> list[int]:
    assert isinstance(loader.sampler, EpochBatches)
    loader.sampler.set_epoch(epoch)
    return torch.cat([batch.sample_ids for batch in loader]).tolist()


def test_an_epoch_is_a_permutation_keyed_by_seed_and_epoch() -> None:
    loader = speech_data().train_dataloader()
    orders = [order(loader, epoch) for epoch in range(3)]
    assert all(sorted(ids) == list(range(12)) for ids in orders)
    assert len({tuple(ids) for ids in orders}) == 3
    assert order(speech_data().train_dataloader(), 2) == orders[2]
    assert order(speech_data(seed=1).train_dataloader(), 0) != orders[0]
    assert len(loader) == 3


def test_only_training_batches_are_augmented() -> None:
    data = speech_data(AugmentationConfig())
    plain = speech_data()
    assert torch.equal(next(iter(data.val_dataloader())).features, next(iter(plain.val_dataloader())).features)
    assert torch.equal(next(iter(data.test_dataloader())).features, next(iter(plain.test_dataloader())).features)
    assert not torch.equal(next(iter(data.train_dataloader())).features, next(iter(plain.train_dataloader())).features)


def test_a_sample_is_augmented_anew_in_each_epoch() -> None:
    train = speech_data(AugmentationConfig()).train_set
    samples = torch.arange(len(train))
    first, again, later = (train[BatchIndex(epoch, samples)].features for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


@pytest.mark.parametrize("make", [speech_data, spike_data])
def test_batch_size_and_cache_do_not_change_a_bit_of_a_sample(make: Callable[..., SpeechDataModule]) -> None:
    whole = next(iter(make(batch_size=12).train_dataloader()))
    row_of = {sample: row for row, sample in enumerate(whole.sample_ids.tolist())}
    for cache_mb in (0, 0.05, 100):
        data = make(batch_size=5, cache_mb=cache_mb)
        for _ in range(2):  # made, then from the cache where there is room
            for batch in data.train_dataloader():
                for row, sample in enumerate(batch.sample_ids.tolist()):
                    n = int(batch.lengths[row])
                    assert torch.equal(batch.features[row, :n], whole.features[row_of[sample], :n])


@pytest.mark.parametrize("make", [speech_data, spike_data])
def test_worker_processes_do_not_change_a_bit_of_a_batch(make: Callable[..., SpeechDataModule]) -> None:
    here, elsewhere = make(num_workers=0).train_dataloader(), make(num_workers=2).train_dataloader()
    for epoch in (0, 1):
        for loader in (here, elsewhere):
            loader.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        for ours, theirs in zip(here, elsewhere, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_ranks_with_worker_processes_share_out_the_augmented_samples_of_one_process() -> None:
    def epoch(rank: int, world: int, batch_size: int, num_workers: int) -> dict[int, torch.Tensor]:
        data = spike_data(batch_size=batch_size, num_workers=num_workers)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world)  # type: ignore[assignment]
        loader = data.train_dataloader()
        loader.sampler.set_epoch(1)  # type: ignore[union-attr]
        found = [
            (int(sample), batch.features[row, : batch.lengths[row]])
            for batch in loader
            for row, sample in enumerate(batch.sample_ids)
        ]
        assert len({sample for sample, _ in found}) == len(found)
        return dict(found)

    alone, parts = epoch(0, 1, 6, 0), [epoch(rank, 2, 3, 2) for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 6 and sorted({**parts[0], **parts[1]}) == sorted(alone) == list(range(12))
    for part in parts:
        for sample, features in part.items():
            assert torch.equal(features, alone[sample])


def test_changes_to_recordings_are_counted_alike_with_worker_processes(tmp_path: Path) -> None:
    for word in ("yes", "no"):
        (tmp_path / word).mkdir()
        for speaker in range(6):
            loud = 1.5 * np.sin(np.arange(16_000)) * (1 if speaker % 2 else 0.5)
            soundfile.write(tmp_path / word / f"{speaker}_0.wav", loud, 16_000, subtype="FLOAT")
    source = WordsConfig(root=str(tmp_path), pattern=r"(?P<speaker>\d+)_\d$")
    counted = {}
    for num_workers in (0, 2):
        changes.clear()
        data = SpeechDataModule(source, LogMelConfig(hop_ms=25), batch_size=2, num_workers=num_workers)
        data.setup()
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
            list(loader)
        counted[num_workers] = {kind: sorted(names) for kind, names in changes.names.items()}
    changes.clear()
    assert [len(names) for names in counted[0].values()] == [6]
    assert counted[2] == counted[0]


def test_no_clip_is_read_before_it_is_asked_for_and_none_twice() -> None:
    data = spike_data()
    reads = {name: clips.events.read_clips for name, clips in data.splits._asdict().items()}
    data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert reads == {"train": [], "valid": [], "test": []}
    batch = data.train_set[BatchIndex(0, torch.tensor([7, 3]))]
    assert reads["train"] == [7, 3]
    assert batch.sample_ids.tolist() == [7, 3]
    for epoch in (0, 1):
        data.train_dataloader().sampler.set_epoch(epoch)  # type: ignore[union-attr]
        list(data.train_dataloader())
    assert sorted(reads["train"]) == list(range(12))
    assert reads["test"] == []


def test_the_cache_never_holds_more_than_its_budget() -> None:
    for cache_mb in (0.0, 0.1, 0.3):
        data = speech_data(cache_mb=cache_mb)
        list(data.train_dataloader()), list(data.val_dataloader())
        kept = [f for features in (data.train_set, data.valid_set) for f in features.frames._kept.values()]
        n_bytes = sum(frames.nbytes for frames in kept)
        assert n_bytes <= cache_mb * 1e6
        assert n_bytes + data.budget.free_bytes == int(cache_mb * 1e6)
        assert all(frames.untyped_storage().nbytes() == frames.nbytes for frames in kept)  # no hidden padding
    with pytest.raises(ValueError, match="cache_mb=-1"):
        CacheBudget(-1)


def test_views_of_the_same_clips_share_frames_or_clips() -> None:
    data = spike_data()
    samples = torch.arange(4)
    augmented = data.train_set
    plain = augmented.with_augmentation(None)
    fine = augmented.through(EventBinsConfig().at(5.0).build())
    coarse, finer = plain[BatchIndex(0, samples)], fine[BatchIndex(0, samples)]
    assert torch.equal(coarse.labels, finer.labels)
    assert (finer.lengths >= 2 * coarse.lengths - 1).all()
    assert torch.equal(coarse.features.sum((1, 2)), finer.features.sum((1, 2)))  # every event, at both resolutions
    reads = data.splits.train.events.read_clips
    assert len(reads) == 8  # once for each resolution
    augmented[BatchIndex(1, samples)]
    assert len(reads) == 8
    assert augmented.frames is plain.frames


def test_a_front_end_for_other_clips_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"16000 Hz for a front end of 8000 Hz.*gsc for 16 kHz"):
        SpeechDataModule(Source(), LogMelConfig.gsc_8k()).setup()
    with pytest.raises(ValueError, match=r"audio clips.*use features=gsc"):
        SpeechDataModule(Source(), EventBinsConfig()).setup()
    with pytest.raises(ValueError, match=r"spike trains.*use features=events"):
        SpeechDataModule(SpikeSource(), LogMelConfig.gsc()).setup()
    with pytest.raises(ValueError, match="kind event_bins; use augmentation=shd"):
        SpeechDataModule(SpikeSource(), EventBinsConfig(), AugmentationConfig())
    with pytest.raises(ValueError, match="kind log_mel; use augmentation=masks"):
        SpeechDataModule(Source(), LogMelConfig.gsc(), SpikeAugmentationConfig())
    with pytest.raises(ValueError, match=r"700 for a front end of 1000|700 units for a front end of 1000"):
        SpeechDataModule(SpikeSource(), EventBinsConfig(n_units=1000)).setup()


def test_use_before_setup_and_empty_batches_are_errors() -> None:
    data = SpeechDataModule(Source(), LogMelConfig.gsc())
    for use in (data.train_dataloader, lambda: data.splits, lambda: data.test_set):
        with pytest.raises(RuntimeError, match=r"setup\(\)"):
            use()
    with pytest.raises(ValueError, match="batch_size"):
        speech_data(batch_size=0).train_dataloader()


def test_a_clip_that_cannot_be_framed_is_named() -> None:
    clips = SpikeTrains(
        events=[Events(np.array([0.0, 1e6]), np.array([0, 1]))] * 2, labels=np.array([0, 1]), speakers=["a", "b"],
        names=["first", "second"], class_names=("a", "b"),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"clip second: spans 100000000 steps.*seconds"):
        featurise(clips, EventBinsConfig().build())[BatchIndex(0, torch.tensor([1]))]


class Listener(lightning.LightningModule):
    """Writes down what it is given, and learns one number so that there is something to resume."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.heard: dict[int, list[tuple[list[int], float]]] = {}

    def training_step(self, batch: SpeechBatch, _: int) -> torch.Tensor:
        seen = (batch.sample_ids.tolist(), float(batch.features.double().sum()))
        self.heard.setdefault(self.current_epoch, []).append(seen)
        return (self.weight - batch.features.mean()) ** 2

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def listen(epochs: int, resume_from: Path | None = None) -> tuple[Listener, lightning.Trainer]:
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    listener = Listener()
    trainer.fit(listener, datamodule=speech_data(AugmentationConfig()), ckpt_path=resume_from)
    return listener, trainer


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(tmp_path: Path) -> None:
    uninterrupted, _ = listen(4)
    _, trainer = listen(2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = listen(4, resume_from=tmp_path / "half.ckpt")
    assert sorted(uninterrupted.heard) == [0, 1, 2, 3]
    assert sorted(resumed.heard) == [2, 3]
    for epoch in (2, 3):
        assert resumed.heard[epoch] == uninterrupted.heard[epoch]
    assert uninterrupted.heard[0] != uninterrupted.heard[1]
    torch.testing.assert_close(resumed.weight, uninterrupted.weight)
