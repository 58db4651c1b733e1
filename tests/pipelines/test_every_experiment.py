"""Every recipe starts on two processes: a step of training and one of validation, on small files as published."""

import csv
import os
from collections.abc import Sequence
from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spikeloom.pipelines.cli import main
from spikeloom.pipelines.commands import data
from spikeloom.pipelines.config.data import DataConfig
from tests.pipelines.small_data import write_digits, write_speech
from tests.ranks import on_ranks
from tests.vision.event_files import write_cifar10dvs, write_gestures, write_nmnist
from tests.vision.test_images import write_mnist, write_picture

# What trainings import: once here, where all their processes are forked from.
WARM = (
    "training.classification",
    "training.distillation",
    "eeg.train",
    "eeg.module",
    "domains.speech",
    "domains.vision",
    "domains.bci",
    "config.composition",
    "commands.train",
    "commands.distill",
    "commands.pretrain",
)
EXPERIMENTS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "experiment").glob("*.yaml"))
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def write_arabic(root: Path) -> None:
    """Noise as three words of five speakers, with the published lists."""
    words, rng = root / "arabic_speech_commands", np.random.default_rng(0)
    for split, speakers in (("train", (1, 2, 3)), ("val", (4,)), ("test", (5,))):
        names = [f"dataset/{word}/{k:08d}_NO_01.wav" for word in ("left", "right", "stop") for k in speakers]
        for name in names:
            file = words / name
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, 0.1 * rng.standard_normal(16_000), 16_000)
        with (words / f"{split}.csv").open("w", newline="") as table:
            csv.writer(table).writerows([("file", "class"), *((n, n.split("/")[1]) for n in names)])


def write_vision(root: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("mnist", "imagenet", "cifar10", "cifar100"):
        (root / folder).mkdir(parents=True)
    for split, n in (("train", 60), ("test", 20)):
        write_mnist(root / "mnist", split, rng.integers(0, 256, (n, 28, 28)), np.arange(n) % 10)
    for name, classes, size in (("cifar10", 10, 32), ("cifar100", 100, 32), ("imagenet", 4, 48)):
        for split, n in (("train", 8), ("test", 2)):
            for label in range(classes):
                for i in range(n):
                    write_picture(root / name / split / f"class{label:03d}" / f"{i}.png", 2 * label + i, size)
    write_nmnist(root / "nmnist", 4, 2)
    write_gestures(root / "dvs128", (1, 2, 21, 22), (24, 25))  # 21 to 23 are for validation
    write_cifar10dvs(root / "cifar10dvs", CLASSES, 10)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All data sets in small, as $SPIKELOOM_DATA."""
    for module in WARM:
        import_module(f"spikeloom.pipelines.{module}")
    made = tmp_path_factory.mktemp("data")
    write_speech(made)
    write_digits(
        made / "fsdd", takes=6
    )  # a tenth of the voices that train is for validation, and two processes share it
    write_arabic(made)
    write_vision(made)
    lines = made / "lines.txt"
    lines.write_text("\n".join(f"Film number {i} by Bôcher - it was good." for i in range(40)), encoding="utf-8")
    data.run(DataConfig(what="synthesize", dataset="zuco", out=str(made / "zuco"), text=str(lines), subjects=2,
                        tasks=["SR1", "NR1", "NR2"], sentences=40))  # fmt: skip
    return made


def start(root: str, arguments: Sequence[str]) -> str | None:
    """What a process refuses with; None where the command ends well."""
    os.environ["SPIKELOOM_DATA"] = root
    said = StringIO()
    try:
        with redirect_stderr(said):
            main(list(arguments))
    except SystemExit as stop:
        return said.getvalue()[-300:] if stop.code else None
    return None


def verb(name: str) -> str:
    return "distill" if name.startswith("kdcl") else "pretrain" if name.startswith("cet_mae") else "train"


SMALL = ["trainer.threads=1", "trainer.num_workers=0"]


def few(name: str) -> list[str]:
    """Keys that make data small which are made in memory, or that forty sentences need."""
    if name in ("cet_mae_synthetic", "e2t_ptr_synthetic"):
        return ["data.n_subjects=2", "data.n_sentences=60"]
    return ["features.split.margin=0"] if "zuco" in name else []


def encoder(root: Path, name: str) -> Path:
    """A pretrained CET-MAE for a recipe of a decoder, small, on the data of the recipe."""
    data = {"e2t_ptr_synthetic": "synthetic_zuco", "e2t_ptr_zuco_published": "zuco_3_tasks"}.get(name, "zuco")
    run = root / "encoders" / data
    if not run.exists():
        recipe = "cet_mae_synthetic" if data == "synthetic_zuco" else "cet_mae_zuco"
        once = ["trainer.epochs=1", "trainer.batch_size=4", "trainer.limit_train_batches=2", *few(name), *SMALL]
        line = ["pretrain", f"experiment={recipe}", f"data={data}", *once, f"run={run}"]
        assert on_ranks(1, start, str(root), line) == [None]
    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_recipe_starts_on_two_processes(name: str, root: Path, tmp_path: Path) -> None:
    small = [f"run={tmp_path / 'run'}", *SMALL, *few(name)]
    size = 2 if "imagenet" in name or "full" in name or "published" in name else 4
    two = ["trainer=ddp", "trainer.devices=2", "trainer.fast_dev_run=true", f"trainer.batch_size={size}"]
    if name.startswith("e2t_ptr"):
        two.append(f"pretrained={encoder(root, name)}")
    if name.startswith("bs_"):  # learns without gradients, in one process
        (said,) = on_ranks(1, start, str(root), ["train", f"experiment={name}", "trainer.fast_dev_run=true", *small])
        assert said is not None and "model.kind=stochastic" in said
        return
    assert on_ranks(2, start, str(root), [verb(name), f"experiment={name}", *two, *small]) == [None, None]
