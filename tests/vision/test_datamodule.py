"""A batch depends on (seed, epoch) alone; the test set is left alone; frames on disk are those made anew."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spikeloom.accel.common.batches import BatchIndex, CacheBudget
from spikeloom.vision.datamodule import FrameSet, VisionDataModule
from spikeloom.vision.datasets.event_sets import Cifar10DvsConfig, EventFilesConfig, GestureConfig, NMnistConfig
from spikeloom.vision.datasets.images import CIFAR10_NAMES
from spikeloom.vision.datasets.samples import Lazy, Samples
from spikeloom.vision.datasets.sources import ScannedDigitsConfig
from spikeloom.vision.models.prediction import predict
from spikeloom.vision.transforms.augmentation import EventAugmentationConfig, ImageAugmentationConfig
from spikeloom.vision.transforms.frames import EventFramesConfig, PixelsConfig
from tests.vision.event_files import write_cifar10dvs, write_gestures, write_nmnist

DIGITS = PixelsConfig(channels=1, size=16, interpolation="nearest", mean=[0.3053], std=[0.3760])


def digits(**changes: object) -> VisionDataModule:
    augmentation = ImageAugmentationConfig(crop_padding=1, erase=0.5, mixup=0.5, mix_until_epoch=1)
    values = {"batch_size": 64, "seed": 1, "smoothing": 0.1, **changes}
    data = VisionDataModule(ScannedDigitsConfig(), DIGITS, augmentation, **values)
    data.setup()
    return data


def test_a_digit_is_shown_sixteen_pixels_wide_every_pixel_twice() -> None:
    data = digits()
    shown = data.valid_set[BatchIndex(0, torch.arange(3))]
    assert shown.frames.shape == (3, 1, 16, 16)
    stored = np.asarray(data.splits.valid.content[0]) / 16
    expected = (stored.repeat(2, 0).repeat(2, 1) - 0.3053) / 0.3760
    assert np.allclose(shown.frames[0, 0].numpy(), expected, atol=1e-6)
    assert shown.targets is None


def test_epochs_repeat_by_seed_and_differ_by_number() -> None:
    def epoch(data: VisionDataModule, number: int) -> list[torch.Tensor]:
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)
        return [torch.cat([batch.frames.flatten(), batch.targets.flatten()]) for batch in loader]

    a, b, other = epoch(digits(), 0), epoch(digits(), 0), epoch(digits(), 1)
    assert len(a) == 20
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[0], other[0])
    in_workers = epoch(digits(num_workers=2), 0)
    assert all(torch.equal(x, y) for x, y in zip(a, in_workers, strict=True))


def test_mixtures_end_with_their_epoch_and_smoothing_stays() -> None:
    train = digits().train_set
    mixed, plain = train[BatchIndex(0, torch.arange(8))].targets, train[BatchIndex(1, torch.arange(8))].targets
    assert mixed is not None and plain is not None
    assert (plain.max(1).values - 0.91).abs().max() < 1e-6
    assert ((mixed > 0.0101).sum(1) == 2).sum() >= 4


def test_no_test_sample_is_read_before_the_test_set_is_asked_and_scoring_is_counted() -> None:
    read: list[int] = []
    samples = ScannedDigitsConfig().build().test
    watched = Samples(
        content=Lazy(len(samples), lambda i: (read.append(i), samples.content[i])[1]), labels=samples.labels,
        names=samples.names, class_names=samples.class_names, full_scale=16.0,
    )  # fmt: skip

    class Source:
        def build(self):
            return ScannedDigitsConfig().build()._replace(test=watched)

    data = VisionDataModule(Source(), DIGITS)
    data.setup()
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert read == []
    test, model = data.test_set, nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    assert test.times_scored == 0
    assert predict(model, test).shape == (360, 10)
    assert (test.times_scored, sorted(read)) == (1, list(range(360)))


def test_what_does_not_fit_in_memory_is_read_again() -> None:
    samples, read = ScannedDigitsConfig().build().valid, []
    lazy = Samples(
        content=Lazy(len(samples), lambda i: (read.append(i), samples.content[i])[1]), labels=samples.labels,
        names=samples.names, class_names=samples.class_names, full_scale=16.0,
    )  # fmt: skip
    frames = FrameSet(lazy, DIGITS, CacheBudget(64 * 3 / 1e6))
    for _ in range(2):
        frames[BatchIndex(0, torch.arange(5))]
    assert read == [0, 1, 2, 3, 4, 3, 4]


def test_pictures_of_other_sizes_and_colours_are_fitted() -> None:
    config = PixelsConfig(size=32, crop_pct=0.875)
    for shape in ((100, 50), (20, 90, 3), (32, 32, 3), (31, 64)):
        picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        assert config.frames(picture).shape == (3, 32, 32)
    grey = DIGITS.frames(np.full((40, 40, 3), 255, np.uint8))
    assert grey.shape == (1, 16, 16)
    assert grey.flatten()[0] == pytest.approx((1 - 0.3053) / 0.3760)
    exact = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(config.fitted(exact), exact)
    with pytest.raises(ValueError, match="use nearest, bilinear, bicubic"):
        PixelsConfig(interpolation="magic")
    with pytest.raises(ValueError, match="1 or 3 channels"):
        PixelsConfig(channels=2)


# --- event data sets ------------------------------------------------------------------------------------------------


def test_cifar10_dvs_trains_on_the_first_nine_tenths_by_name(tmp_path: Path) -> None:
    write_cifar10dvs(tmp_path, CIFAR10_NAMES, 20)
    splits = Cifar10DvsConfig(root=str(tmp_path)).build()
    assert [len(s) for s in splits] == [162, 18, 20]
    assert splits.test.names[:2] == ["airplane/cifar10_airplane_8.aedat", "airplane/cifar10_airplane_9.aedat"]
    data = VisionDataModule(Cifar10DvsConfig(root=str(tmp_path)), EventFramesConfig(n_frames=4), batch_size=3)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch.frames.shape == (4, 3, 2, 128, 128)
    assert batch.frames.sum() == 900
    (tmp_path / "frog" / "cifar10_frog_0.aedat").write_bytes(b"#!AER-DAT2.0\r\n")
    with pytest.raises(ValueError, match=r"sample frog/cifar10_frog_0.aedat: .*no event"):
        FrameSet(Cifar10DvsConfig(root=str(tmp_path)).load(), EventFramesConfig())[BatchIndex(0, torch.tensor([120]))]
    (tmp_path / "truck").rename(tmp_path / "lorry")
    with pytest.raises(FileNotFoundError, match=r"no \*\.aedat in .*truck; unpack the ten zips"):
        Cifar10DvsConfig(root=str(tmp_path)).build()


def test_gestures_are_split_by_people_and_mirrored_with_their_labels(tmp_path: Path) -> None:
    write_gestures(tmp_path, train=(1, 2, 21, 23), test=(24,))
    source = GestureConfig(root=str(tmp_path))
    splits = source.build()
    assert [len(s) for s in splits] == [22, 22, 11]
    assert set(splits.valid.groups or ()) == {"user21", "user23"}
    assert len(source.load()) == 55
    features = EventFramesConfig(n_frames=3)
    always = EventAugmentationConfig(flip=1.0, one_of=False).build(features, 0)
    plain, flipped = FrameSet(splits.train, features), FrameSet(splits.train, features, augmentation=always)
    ids = torch.arange(11)
    a, b = plain[BatchIndex(0, ids)], flipped[BatchIndex(0, ids)]
    assert torch.equal(b.frames, a.frames.flip(-1))
    assert b.labels.tolist() == [0, 2, 1, 6, 5, 4, 3, 7, 8, 9, 10]
    (tmp_path / "user24_led.aedat").unlink()
    with pytest.raises(FileNotFoundError, match=r"no user24_led\.aedat .* which trials_to_test\.txt names"):
        source.build()


def test_overlapping_gestures_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_gestures(tmp_path, train=(1, 22), test=(24,))
    table = tmp_path / "user22_led_labels.csv"
    table.write_text(table.read_text().replace("2,100000,", "2,90000,"))
    with caplog.at_level("WARNING", logger="spikeloom"):
        GestureConfig(root=str(tmp_path)).build()
    assert "user22_led_labels.csv: 1 labelled stretches overlap" in caplog.text


def test_n_mnist_and_own_recordings_are_split(tmp_path: Path) -> None:
    write_nmnist(tmp_path / "n", 5, 2)
    assert [len(s) for s in NMnistConfig(root=str(tmp_path / "n")).build()] == [40, 10, 20]
    (tmp_path / "n" / "Train").rename(tmp_path / "n" / "train")
    (tmp_path / "n" / "Test").rename(tmp_path / "n" / "test")
    splits = EventFilesConfig(root=str(tmp_path / "n")).build()
    assert [len(s) for s in splits] == [40, 10, 20]
    assert splits.train.sensor == (34, 34)


def test_frames_on_disk_are_those_made_anew_and_belong_to_one_set(tmp_path: Path) -> None:
    write_nmnist(tmp_path / "n", 3, 2)
    samples = NMnistConfig(root=str(tmp_path / "n")).build().train
    config = EventFramesConfig(n_frames=4, cache=str(tmp_path / "cache"))
    ids = torch.arange(len(samples))
    anew = FrameSet(samples, EventFramesConfig(n_frames=4))[BatchIndex(0, ids)].frames
    for _ in range(2):
        assert torch.equal(FrameSet(samples, config)[BatchIndex(0, ids)].frames, anew)
    folders = list((tmp_path / "cache").iterdir())
    assert len(folders) == 1
    assert folders[0].name.startswith("number_T4_last_34x34_")
    assert len(list(folders[0].glob("*.npz"))) == len(samples)
    assert not list(folders[0].glob(".*partial"))
    (folders[0] / "index.json").write_text('{"samples": 3, "sha256": "other"}')
    with pytest.raises(ValueError, match="holds frames of 3 recordings, here are 20; delete it"):
        FrameSet(samples, config)
    (folders[0] / "index.json").unlink()
    (folders[0] / "000002.npz").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"000002\.npz is damaged"):
        FrameSet(samples, config)[BatchIndex(0, torch.tensor([2]))]


def test_features_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need pixels"):
        FrameSet(ScannedDigitsConfig().load(), EventFramesConfig())
    write_nmnist(tmp_path, 2, 1)
    with pytest.raises(ValueError, match="features=frames"):
        FrameSet(NMnistConfig(root=str(tmp_path)).load(), DIGITS)
