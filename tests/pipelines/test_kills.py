"""Whatever moment a command is killed at, the same command again ends in the very files of one that was not killed."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from spikeloom.accel.common import report
from spikeloom.accel.common.files import sweep_leftovers, whole
from spikeloom.pipelines import cli
from tests.pipelines.killing import Work, in_child, killed_and_repeated
from tests.pipelines.test_claim import config as classifier
from tests.pipelines.test_distill import config as curriculum
from tests.pipelines.test_trials import composed

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="kills are counted by what Linux has")


@pytest.fixture(autouse=True)
def nothing_is_drawn() -> Iterator[None]:
    """Pages are written as ever, their figures empty: drawing takes most of such short runs, and writes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_svg", lambda figure, name, label: "<svg></svg>")
        yield


def train(run: Path) -> None:
    from spikeloom.pipelines.training import classification

    classification.train(classifier(run, resume=True))


def distill(run: Path) -> None:
    from spikeloom.pipelines.training import distillation

    distillation.distil(curriculum(run, resume=True, resolutions_ms=[20.0, 40.0], undistilled=False))


def pretrain(run: Path) -> None:
    from spikeloom.pipelines.eeg.train import pretrain as learn

    config = composed("pretrain", f"run={run}", "resume=true", "model.sizes.text_layers=1")
    learn(replace(config, data=replace(config.data, n_sentences=30, n_subjects=1)))


def sweep(run: Path) -> None:
    small = [
        "experiment=spikescr_synthetic", "data.n_words=2", "data.n_speakers=3", "data.takes=1", "model.width=8",
        "data.n_test_speakers=1", "data.n_valid_speakers=1", "model.heads=1", "model.depth=1", "trainer.epochs=1",
        "trainer.threads=1",
    ]  # fmt: skip
    cli.main(["train", "-m", *small, f"run={run}/seed${{seed}}", "resume=true", "seed=0,1"])


def federate(run: Path) -> None:
    from spikeloom.pipelines.commands import federate as verb
    from tests.pipelines.test_federate import BASE

    verb.run(replace(BASE, limit=40, workers=2, rounds=1, out=str(run)))


def cochlea(run: Path) -> None:
    words = run.parents[1] / "words"
    if not words.exists():
        words.mkdir()
        rng = np.random.default_rng(0)
        for name in ("0_ann_0", "1_ann_0", "0_bob_0"):
            soundfile.write(words / f"{name}.wav", 0.1 * rng.standard_normal(600), 8000)
    cli.main(["data", "cochlea", f"in={words}", f"out={run}/spikes.h5"])


def caches(run: Path) -> None:
    """Those of EEG result files and of event recordings."""
    from spikeloom.bci.zuco.cache import cached_sentences
    from spikeloom.vision.datasets.event_sets import NMnistConfig
    from spikeloom.vision.datasets.frame_cache import FrameCache
    from spikeloom.vision.transforms.frames import EventFramesConfig
    from tests.bci.zuco.published import edge_cases, write_matlab5
    from tests.vision.event_files import write_nmnist

    file = run.parents[1] / "resultsZAB_SR.mat"
    if not file.exists():
        write_matlab5(file, edge_cases())
        write_nmnist(file.parent / "nmnist", 8, 2)
    cached_sentences(file, run / "zuco")
    frames = FrameCache(
        EventFramesConfig(n_frames=4, cache=str(run / "frames")),
        NMnistConfig(root=str(file.parent / "nmnist")).build().train,
    )
    for index in range(len(frames.samples)):
        frames.frames(index)


def export(run: Path) -> None:
    from spikeloom.pipelines.api.models import create_model
    from spikeloom.vision.datasets.sources import ScannedDigitsConfig
    from spikeloom.vision.models.config import SpikingNetConfig
    from spikeloom.vision.transforms.augmentation import ImageAugmentationConfig
    from spikeloom.vision.transforms.frames import PixelsConfig
    from tests.public_runs import DIGITS, write_run

    trained = run.parents[1] / "digits"
    if not trained.exists():
        torch.manual_seed(0)
        write_run(
            trained, create_model("spiking_mlp", size=8, T=2), DIGITS, data=ScannedDigitsConfig(),
            features=PixelsConfig(channels=1, size=8, mean=[0.3], std=[0.38]), augmentation=ImageAugmentationConfig(),
            model=SpikingNetConfig(net="mlp", T=2),
        )  # fmt: skip
    cli.main(["export", f"run={trained}", f"out={run}/export", "batches=1", "batch_size=2"])


WORKS: dict[str, Work] = {work.__name__: work for work in
    (train, distill, pretrain, sweep, federate, cochlea, caches, export)}  # fmt: skip
# 200 kills and more; fewer where a run takes seconds.
KILLS = {
    "train": 25, "distill": 15, "pretrain": 25, "sweep": 20, "federate": 40, "cochlea": 30, "caches": 35, "export": 15,
}  # fmt: skip


def test_what_a_killed_writer_left_goes_and_what_a_running_one_writes_stays(tmp_path: Path) -> None:
    def write(run: Path) -> None:
        with whole(run) as partial:
            partial.mkdir()
            (partial / "program").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(write, tmp_path / "export").status == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    sweep_leftovers(tmp_path, "other")
    assert left.exists()
    with whole(tmp_path / "another") as running:
        running.mkdir()
        sweep_leftovers(tmp_path)
        assert sorted(tmp_path.iterdir()) == [running]
    assert [path.name for path in tmp_path.iterdir()] == ["another"]


@pytest.mark.parametrize("name", ["train", "caches"])
def test_kills_at_any_point_lose_nothing(name: str, tmp_path: Path) -> None:
    made, different, refused = killed_and_repeated(WORKS[name], tmp_path, kills=3, seed=1)
    assert made >= 3 and (different, refused) == ([], 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLS)
def test_two_hundred_kills_lose_nothing(name: str, tmp_path: Path) -> None:
    made, different, refused = killed_and_repeated(WORKS[name], tmp_path, KILLS[name], seed=2)
    print(f"\n{name}: {made} kills, {len(different)} different files, {refused} refusals")
    assert (different, refused) == ([], 0)
