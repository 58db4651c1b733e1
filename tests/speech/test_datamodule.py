"""The data module: features once, batches by (seed, epoch), nothing of the test split before it is asked for."""

import functools
from pathlib import Path

import lightning
import pytest
import torch

from speech import datamodule as module_under_test
from speech.augmentation import AugmentationConfig
from speech.datamodule import Draw, EpochBatches, SpeechBatch, SpeechDataModule, featurise
from speech.features import LogMelConfig
from speech.synthetic import SyntheticConfig
from speech.utterances import SpeechSplits


@functools.cache
def splits() -> SpeechSplits:
    return SyntheticConfig(n_words=2, n_speakers=5, takes=2, n_test_speakers=1, n_valid_speakers=1).build()


class Source:
    def build(self) -> SpeechSplits:
        return splits()


def speech_data(augmentation: AugmentationConfig | None = None, **settings: int) -> SpeechDataModule:
    data = SpeechDataModule(Source(), LogMelConfig.gsc(), augmentation, **{"batch_size": 5, **settings})
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
            torch.testing.assert_close(batch.features[row, :n], alone[0, :n], atol=1e-4, rtol=0)
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
    first, again, later = (train[Draw(epoch, samples)].features for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batch_size_and_workers_do_not_change_a_sample(num_workers: int) -> None:
    augmentation = AugmentationConfig(vocal_tract=0.1)
    one = speech_data(augmentation, batch_size=12)
    many = speech_data(augmentation, batch_size=5, num_workers=num_workers)
    whole = next(iter(one.train_dataloader()))
    row_of = {sample: row for row, sample in enumerate(whole.sample_ids.tolist())}
    for batch in many.train_dataloader():
        for row, sample in enumerate(batch.sample_ids.tolist()):
            n = int(batch.lengths[row])
            torch.testing.assert_close(batch.features[row, :n], whole.features[row_of[sample], :n])


def test_test_features_are_not_computed_before_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []

    def watched(utterances, *rest):  # type: ignore[no-untyped-def]
        computed.append(utterances)
        return featurise(utterances, *rest)

    monkeypatch.setattr(module_under_test, "featurise", watched)
    data = speech_data()
    data.train_dataloader()
    data.val_dataloader()
    data.train_dataloader()
    assert computed == [data.splits.train, data.splits.valid]
    data.test_dataloader()
    assert computed[-1] is data.test_utterances


def test_clips_of_another_rate_and_use_before_setup_are_errors() -> None:
    data = SpeechDataModule(Source(), LogMelConfig.gsc_8k())
    with pytest.raises(RuntimeError, match=r"setup\(\)"):
        data.train_dataloader()
    data.setup()
    with pytest.raises(ValueError, match="16000 Hz for a front end of 8000 Hz"):
        data.train_dataloader()
    with pytest.raises(ValueError, match="batch_size"):
        speech_data(batch_size=0).train_dataloader()


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
