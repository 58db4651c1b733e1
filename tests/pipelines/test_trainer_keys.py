"""Every key of a training is honoured or refused by name, in every domain; loggers and callbacks are choices."""

import csv
import importlib.util
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor
from lightning.pytorch.loggers import Logger

from spikeloom.pipelines.config.train import PRECISIONS, TrainConfig, TrainerConfig, check_kinds
from spikeloom.pipelines.eeg.train import check as check_eeg
from spikeloom.pipelines.training import classification, fit, plugins, stochastic
from spikeloom.pipelines.training.run_dir import load_model
from spikeloom.pipelines.training.sharding import strategy_of
from tests.pipelines.test_experiments import composed

DIGITS = ("data=digits", "features=digits", "augmentation=pictures", "model=spiking_mlp", "name=digits", "run=unused")
EEG = (
    "data=synthetic_zuco", "features=trials", "augmentation=recorded", "model=cet_mae_planted", "name=eeg",
    "run=unused",
)  # fmt: skip
DOMAINS = {
    "speech": (("name=words", "run=unused"), check_kinds),
    "vision": (DIGITS, check_kinds),
    "bci": (EEG, check_eeg),
    "stochastic": (("experiment=bs_digits", "run=unused"), stochastic.refuse),
}  # fmt: skip
# key -> a value other than the default, and where Lightning's trainer has it; None: not the trainer's own
KEYS: dict[str, tuple[Any, Callable[[Any], Any] | None]] = {
    "epochs": (3, lambda t: t.max_epochs),
    "batch_size": (7, None),
    "threads": (2, None),
    "accelerator": ("auto", lambda t: "auto" if type(t.accelerator).__name__.endswith("Accelerator") else None),
    "devices": (2, None),  # of processes: tests/pipelines/test_distributed.py
    "num_nodes": (2, None),
    "strategy": ("ddp", lambda t: {"DDPStrategy": "ddp"}.get(type(t.strategy).__name__)),
    "strategy_args": ({"find_unused_parameters": True}, None),
    "num_workers": (1, None),
    "cache_mb": (1.0, None),
    "accumulate": (2, lambda t: t.accumulate_grad_batches),
    "gradient_clip_val": (0.5, lambda t: t.gradient_clip_val),
    "ema_decay": (0.9, None),
    "precision": ("bf16-mixed", lambda t: t.precision),
    "max_steps": (5, lambda t: t.max_steps),
    "limit_train_batches": (0.5, lambda t: t.limit_train_batches),
    "limit_val_batches": (2.0, lambda t: t.limit_val_batches),
    "val_check_interval": (0.5, lambda t: t.val_check_interval),
    "sync_batchnorm": (True, None),
    "deterministic": ("warn", lambda t: "warn" if torch.is_deterministic_algorithms_warn_only_enabled() else None),
    "profiler": ("simple", lambda t: {"SimpleProfiler": "simple"}.get(type(t.profiler).__name__)),
    "compile": (True, None),
    "fast_dev_run": (True, lambda t: bool(t.fast_dev_run)),
    "ckpt_path": ("last.ckpt", None),
}
REFUSED = {"speech": set(), "vision": set(), "bci": {"cache_mb"}, "stochastic": set(KEYS) - {
    "epochs", "batch_size", "threads",
}}  # fmt: skip


@pytest.fixture(scope="module")
def configs() -> dict[str, TrainConfig]:
    return {name: composed(*overrides) for name, (overrides, _) in DOMAINS.items()}


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are looked at elsewhere."""
    monkeypatch.setattr(classification, "write_report", lambda *given: None)


def with_keys(config: TrainConfig, run: Path, **keys: Any) -> TrainConfig:
    short = {"epochs": 1, "threads": 1, "batch_size": 200}
    return replace(config, run=str(run), trainer=replace(config.trainer, **(short | keys)))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_key_of_the_trainer_is_in_the_table() -> None:
    assert set(KEYS) == {field.name for field in fields(TrainerConfig)}
    assert all(value != getattr(TrainerConfig(), name) for name, (value, _) in KEYS.items())


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("key", KEYS)
def test_a_domain_takes_a_key_or_refuses_it_by_name(key: str, domain: str, configs: dict[str, TrainConfig]) -> None:
    config, check = configs[domain], DOMAINS[domain][1]
    config = replace(config, trainer=replace(config.trainer, **{key: KEYS[key][0]}))
    if key in REFUSED[domain]:
        with pytest.raises(ValueError, match=rf"trainer\.{key}=.*; leave it out|trainer\.{key}=.*leave it out"):
            check(config)
    else:
        check(config)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("group", ["logger", "callbacks"])
def test_groups_of_lightning_are_refused_where_there_is_no_lightning(
    group: str, domain: str, configs: dict[str, TrainConfig]
) -> None:
    chosen = replace(configs[domain], **{group: {"mine": {"_target_": "x.Y"}}})
    if domain == "stochastic":
        with pytest.raises(ValueError, match=rf"{group}=mine is for models that learn by gradients"):
            DOMAINS[domain][1](chosen)
    else:
        DOMAINS[domain][1](chosen)


@pytest.mark.parametrize("key", [key for key, (_, where) in KEYS.items() if where is not None])
def test_a_key_reaches_the_trainer(key: str, tmp_path: Path) -> None:
    value, where = KEYS[key]
    assert where is not None
    try:
        trainer = fit.make_trainer(replace(TrainerConfig(), **{key: value}), [], tmp_path, bar=False)
        assert where(trainer) == value
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_strategy_takes_its_arguments_or_refuses_them_by_name() -> None:
    model = torch.nn.Linear(2, 2)
    assert strategy_of("auto", {}, model) == "auto"
    made = strategy_of("ddp", {"find_unused_parameters": True}, model)
    assert type(made).__name__ == "DDPStrategy" and made._ddp_kwargs == {"find_unused_parameters": True}
    shared = strategy_of("fsdp", {"sharding_strategy": "SHARD_GRAD_OP"}, model)
    assert shared.sharding_strategy.name == "SHARD_GRAD_OP" and shared.kwargs["ignored_states"] == []
    for name, arguments, said in (
        ("auto", {"x": 1}, "which takes none; use trainer=ddp"),
        ("ddp", {"nonsense": 1}, r"trainer\.strategy_args\.nonsense"),
        ("deepspeed", {"stage": 2}, r"trainer\.strategy=deepspeed trainer\.strategy_args \(stage\): .*deepspeed"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            strategy_of(name, arguments, model)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_precision_trains_or_is_refused_in_one_line(
    precision: str, configs: dict[str, TrainConfig], tmp_path: Path
) -> None:
    config = with_keys(configs["vision"], tmp_path / "run", precision=precision, limit_train_batches=2.0)
    if precision.startswith("transformer-engine"):
        with pytest.raises(ValueError, match=rf"trainer\.precision={precision} is not available here") as refused:
            classification.train(config)
        assert "\n" not in str(refused.value)
        return
    found = classification.train(config)
    assert found["test_accuracy"] > 0.1
    kept = load_model(tmp_path / "run/model").model
    assert {p.dtype for p in kept.parameters()} == {torch.float32}, "models are kept in single precision"


@pytest.mark.parametrize(("key", "value", "named"), [
    ("precision", "8-true", "use one of 32-true"), ("val_check_interval", 0.0, "must be > 0"),
    ("val_check_interval", -1.0, "must be > 0"),
])  # fmt: skip
def test_a_value_that_no_trainer_has_is_refused(key: str, value: Any, named: str) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.{key}={value}.*{named}"):
        replace(TrainerConfig(), **{key: value}).check()


def test_a_dry_run_keeps_nothing_and_disturbs_no_run(configs: dict[str, TrainConfig], tmp_path: Path) -> None:
    config = with_keys(configs["vision"], tmp_path / "run", fast_dev_run=True)
    assert classification.train(config) == {}
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("kept")
    assert classification.train(replace(config, overwrite=True)) == {}
    assert (tmp_path / "run" / "mine.txt").read_text() == "kept"


def test_loggers_and_callbacks_write_what_they_are_for(configs: dict[str, TrainConfig], tmp_path: Path) -> None:
    chosen = composed(
        *DIGITS, "logger=csv", "callbacks=[lr_monitor,early_stopping,timer]", "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=10", "trainer.epochs=5", "trainer.threads=1",
    )  # fmt: skip
    classification.train(replace(chosen, run=str(tmp_path / "run")))
    logged = rows(tmp_path / "run/logs/csv/version_0/metrics.csv")
    seen = {name for row in logged for name, value in row.items() if value}
    assert {"train_loss", "valid_loss", "valid_accuracy", "lr-AdamW", "step"} <= seen
    assert len(rows(tmp_path / "run/metrics.csv")) == 2, "stopped after one epoch without a gain of ten"
    written = [float(row["valid_loss"]) for row in logged if row["valid_loss"]]
    assert written == pytest.approx([float(row["valid_loss"]) for row in rows(tmp_path / "run/metrics.csv")])


class Kept(Logger):
    """A logger of the user's own."""

    seen: dict[str, float] = {}  # noqa: RUF012, of all instances

    def __init__(self, url: str = "") -> None:
        super().__init__()
        self.url = url

    name, version = "kept", "0"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        Kept.seen |= metrics

    def log_hyperparams(self, params: Any) -> None:  # type: ignore[override]
        Kept.seen |= {"T": params["model.T"]}


class Counting(Callback):
    """A callback of the user's own."""

    batches = 0

    def on_train_batch_end(self, *given: Any) -> None:
        Counting.batches += 1


def test_a_logger_and_a_callback_of_ones_own_are_used(configs: dict[str, TrainConfig], tmp_path: Path) -> None:
    Kept.seen, Counting.batches = {}, 0
    own = {
        "logger": {"mine": {"_target_": f"{__name__}.Kept", "url": "x"}},
        "callbacks": {"mine": {"_target_": f"{__name__}.Counting"}},
    }
    config = with_keys(replace(configs["vision"], **own), tmp_path / "run", limit_train_batches=2.0)
    classification.train(config)
    assert Counting.batches == 2 and Kept.seen["valid_accuracy"] > 0.1 and Kept.seen["T"] == config.model.T


def test_a_fit_by_the_configuration_of_a_file_makes_no_class(
    configs: dict[str, TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "make_loggers", lambda *given: pytest.fail("a logger was made"))
    monkeypatch.setattr(fit, "make_callbacks", lambda *given, **more: pytest.fail("a callback was made"))
    evil = {"mine": {"_target_": "os.system", "command": "true"}}
    config = replace(with_keys(configs["vision"], tmp_path, fast_dev_run=True), logger=evil, callbacks=evil)
    data = classification.adapter_of(config).data_module(config)
    data.setup()
    module, data = classification.from_labels(config, data)
    assert fit.fit(module, data, config, tmp_path, seed=0, quiet=True).best is None


@pytest.mark.parametrize(("chosen", "named"), [
    ({"_target_": "os.system", "command": "true"}, "is not a class"),
    ({"_target_": "pathlib.Path"}, "is no Logger of Lightning"),
    ({"_target_": "no_such_package.Logger"}, "cannot be imported"),
    ({"_target_": "lightning.pytorch.loggers.CSVLogger", "colour": "red"}, "CSVLogger refuses its arguments.*colour"),
    ({"url": "x"}, r"logger\.mine names no class; give logger\.mine\._target_"),
])  # fmt: skip
def test_a_choice_that_makes_no_logger_is_one_line(chosen: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        plugins.make_loggers({"mine": chosen}, tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "package"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("tensorboard", "tensorboardX")]
)
def test_a_logger_whose_package_is_missing_names_it(name: str, package: str, tmp_path: Path) -> None:
    chosen = composed(*DIGITS, f"logger={name}").logger
    if any(importlib.util.find_spec(one) for one in (name, package)):
        assert isinstance(plugins.make_loggers(chosen, tmp_path)[0], Logger)
        return
    with pytest.raises(ValueError, match=f"logger={name} needs the package .*{package}") as refused:
        plugins.make_loggers(chosen, tmp_path)
    assert "\n" not in str(refused.value)


def test_a_callback_that_logs_needs_a_logger() -> None:
    chosen = composed(*DIGITS, "callbacks=[lr_monitor,early_stopping]").callbacks
    with pytest.raises(ValueError, match="callbacks=lr_monitor writes to a logger, and there is none; add logger=csv"):
        plugins.make_callbacks(chosen, logs=False)
    made = plugins.make_callbacks(chosen, logs=True)
    assert [type(callback) for callback in made] == [LearningRateMonitor, EarlyStopping]


def test_tensorboard_files_lie_in_the_run(configs: dict[str, TrainConfig], tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    chosen = composed(*DIGITS, "logger=[csv,tensorboard]").logger
    config = with_keys(replace(configs["vision"], logger=chosen), tmp_path / "run", limit_train_batches=1.0)
    classification.train(config)
    assert {path.name for path in (tmp_path / "run/logs").iterdir()} == {"csv", "tensorboard"}
    assert list((tmp_path / "run/logs/tensorboard").rglob("events.out.tfevents.*"))


def test_validation_in_the_middle_of_an_epoch_is_logged(configs: dict[str, TrainConfig], tmp_path: Path) -> None:
    chosen = composed(*DIGITS, "logger=csv").logger
    config = replace(configs["vision"], logger=chosen)
    classification.train(with_keys(config, tmp_path / "run", val_check_interval=0.5, limit_train_batches=4.0))
    logged = rows(tmp_path / "run/logs/csv/version_0/metrics.csv")
    assert len([row for row in logged if row["valid_loss"]]) == 2
    assert len(rows(tmp_path / "run/metrics.csv")) == 1


def test_a_training_goes_on_from_a_checkpoint_of_another_run(configs: dict[str, TrainConfig], tmp_path: Path) -> None:
    first = with_keys(configs["vision"], tmp_path / "first", epochs=1)
    classification.train(first)
    last = str(tmp_path / "first/checkpoints/last.ckpt")
    classification.train(with_keys(configs["vision"], tmp_path / "second", epochs=2, ckpt_path=last))
    history = rows(tmp_path / "second/metrics.csv")
    assert [row["epoch"] for row in history] == ["1", "2"]
    assert history[0] == rows(tmp_path / "first/metrics.csv")[0], "the first epoch was not trained again"
    assert json.loads((tmp_path / "second/result.json").read_text())["best_epoch"] == 2

    wider = replace(configs["vision"], model=composed(*DIGITS, "model=spiking_cnn").model)
    with pytest.raises(ValueError, match=r"last\.ckpt is a checkpoint of another training") as refused:
        classification.train(with_keys(wider, tmp_path / "third", epochs=2, ckpt_path=last))
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="both give weights to start from"):
        check_kinds(replace(with_keys(first, tmp_path / "x", ckpt_path=last), pretrained=str(tmp_path / "first")))


def test_joint_statistics_need_a_batch_norm(configs: dict[str, TrainConfig], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sync_batchnorm=true: this model has no batch norm"):
        classification.train(with_keys(configs["vision"], tmp_path / "run", sync_batchnorm=True, fast_dev_run=True))


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["speech", "vision", "bci"])
def test_a_compiled_training_is_the_plain_one(
    domain: str, configs: dict[str, TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for compiled in (False, True):
        config = with_keys(configs[domain], tmp_path / str(compiled), compile=compiled, limit_train_batches=3.0,
                           batch_size=8)  # fmt: skip
        classification.adapter_of(config).train(config)
        found[compiled] = rows(tmp_path / str(compiled) / "metrics.csv")
    for name in ("train_loss", "valid_loss"):
        plain, compiled_ = (float(found[kind][0][name]) for kind in (False, True))
        assert compiled_ == pytest.approx(plain, rel=1e-3)
