"""Training runs on trials: pre-training CET-MAE, and the E2T-PTR that inherits from it.

A decoder takes samples, split and tokenizer from the run it is pre-trained by, so that no sentence it is chosen or
tested on was ever fitted.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch

from spikeloom.accel.common.files import contents, write_json
from spikeloom.accel.common.report import results_come_first
from spikeloom.bci.data.datamodule import EncodedTrials, TrialDataModule
from spikeloom.bci.data.tokenizer import TextTokenizer, load_tokenizer
from spikeloom.bci.data.trials import TrialSet, TrialSplits, read_splits
from spikeloom.bci.evaluation.decodings import Decodings
from spikeloom.bci.evaluation.matching import match
from spikeloom.bci.models.config import CETMAERecipe, E2TPTRRecipe, TrialConfig
from spikeloom.bci.models.e2t_ptr import E2TPTR, DecodingConfig
from spikeloom.bci.zuco.splits import load_split
from spikeloom.pipelines.config.train import TrainConfig, TrainerConfig, check_kinds
from spikeloom.pipelines.eeg import report as pages
from spikeloom.pipelines.eeg.module import DecodingModule, PretrainingModule
from spikeloom.pipelines.training.claim import claim, redraw_missing
from spikeloom.pipelines.training.fit import fit
from spikeloom.pipelines.training.inherit import inherit
from spikeloom.pipelines.training.launch import is_first
from spikeloom.pipelines.training.run_dir import UNFINISHED, TrainedModel, finished, load_config, load_model, save_model
from spikeloom.pipelines.training.runtime import set_up

log = logging.getLogger("spikeloom")
CONVERTED = "conversion.json"  # of a run with released weights
PRETRAIN_FIRST = "pretrained=RUN, the folder of a finished `spikeloom pretrain`"


def check(config: TrainConfig) -> None:
    """Raise ValueError, with the key, where the configuration asks for what EEG trials do not have."""
    check_kinds(config)
    if config.report_test_selected:
        raise ValueError("report_test_selected=true is for classifiers, and EEG trials have no classes; leave it out")
    if config.optimizer.label_smoothing and isinstance(config.model, CETMAERecipe):
        raise ValueError("optimizer.label_smoothing is for classes and next words; leave it out for CET-MAE")
    if config.trainer.cache_mb != TrainerConfig.cache_mb:
        raise ValueError(
            f"trainer.cache_mb={config.trainer.cache_mb:g} bounds features that can be made again; EEG trials lie in a "
            "file beside their cache or, synthetic ones, in memory (3.4 kB a word); leave it out"
        )


def read(config: TrainConfig, wanted: tuple[str, ...] = ("train", "valid", "test")) -> TrialSplits:
    """The trials a configuration names. Raises ValueError for features of another room."""
    features = config.features
    assert isinstance(features, TrialConfig)
    return read_splits(config.data.build(), features.samples.build(), features.split, wanted)


def encode(config: TrainConfig, tokenizer: TextTokenizer, trials: TrialSet) -> EncodedTrials:
    target = config.model.sizes.text_target if isinstance(config.model, CETMAERecipe) else None
    return EncodedTrials(trials, tokenizer, config.features.text.max_length, target)


def pretrain(config: TrainConfig, trials: TrialSplits | None = None, *, page: bool = True) -> dict[str, Any]:
    """Pretrain a CET-MAE into `config.run` and return its result.json. No test row is kept, nothing is fitted to a
    valid one. `trials`: of this very configuration, where they are already in memory; `page`: whether report.html is
    drawn."""
    check(config)
    run, started = Path(config.run), time.perf_counter()
    set_up(config.trainer.threads)
    with claim(config) as finished:
        if finished is not None:
            redraw_missing(run, partial(report, config))
            return finished
        trials = trials or read(config, ("train", "valid"))
        data = TrialDataModule(
            features=config.features, trials=trials, batch_size=config.trainer.batch_size, seed=config.seed,
            num_workers=config.trainer.num_workers, text_target=config.model.sizes.text_target,
        )  # fmt: skip
        data.setup()
        if is_first() and not config.trainer.fast_dev_run:
            trials.split.save(run / "split")
        lightning.seed_everything(config.seed, verbose=False)
        module = pretraining_module(config, data)
        if config.pretrained is not None:
            inherit(module.model, config.pretrained)
        announce(config, data, module)
        fitted = fit(module, data, config, run, seed=config.seed, pick="best_loss", resume=config.resume)
        if fitted.best is None:
            return {}
        kept, model = fitted.keep_best(module), module.model
        if not is_first():
            return {}
        result = {
            "name": config.name, "seed": config.seed, "parameters": sum(p.numel() for p in model.parameters()),
            "vocabulary": data.spec.vocab_size, "best_epoch": kept["best_epoch"], **_rows(trials, data),
            "valid": kept["valid"], **_pruned(kept), "retrieval": match(model, data.valid_set, config.seed),
            "seconds": round(time.perf_counter() - started, 1),
        }  # fmt: skip
        _save(run, model, config, data, pages.pretraining_card(result))
        write_json(run / "result.json", result)
        if page:
            with results_come_first(run / "report.html"):
                pages.tell_pretraining(run, config, result, model, data.valid_set)
        rank = result["retrieval"]["same_length_rank"]
        log.info(
            "validation: contrastive %.3f, rank among sentences of one length %s (chance .5), epoch %d -> %s",
            result["valid"]["valid_contrastive"], "–" if rank is None else f"{rank:.3f}", kept["best_epoch"], run,
        )  # fmt: skip
        return result


def train_decoder(config: TrainConfig, trials: TrialSplits | None = None, *, page: bool = True) -> dict[str, Any]:
    """Fine-tune an E2T-PTR into `config.run`, decode the test trials freely, and return its result.json."""
    check(config)
    if config.pretrained is None:
        raise ValueError(f"a decoder inherits its encoder; add {PRETRAIN_FIRST}")
    pretrained = Path(config.pretrained)
    config = like_pretrained(config, pretrained)
    run, started = Path(config.run), time.perf_counter()
    set_up(config.trainer.threads)
    with claim(config) as finished:
        if finished is not None:
            redraw_missing(run, partial(report, config))
            return finished
        trials = trials or read(config)
        check_unseen(trials, pretrained)
        data = TrialDataModule(
            features=config.features, trials=trials, tokenizer=load_tokenizer(pretrained / "model"),
            batch_size=config.trainer.batch_size, seed=config.seed, num_workers=config.trainer.num_workers,
        )  # fmt: skip
        data.setup()
        if is_first() and not config.trainer.fast_dev_run:
            trials.split.save(run / "split")
        model, kept = learn_decoder(config, run, data, seed=config.seed, resume=config.resume)
        if not is_first() or not kept:
            return {}
        recipe: E2TPTRRecipe = config.model
        assert data.tokenizer is not None
        test = decode(model, data.test_set, data.tokenizer, recipe.decoding, config.seed)
        result = {
            "name": config.name, "seed": config.seed, "pretrained": config.pretrained,
            "parameters": sum(p.numel() for p in model.parameters()), "best_epoch": kept["best_epoch"],
            **_rows(trials, data), "test_rows": len(test), "valid": kept["valid"], **_pruned(kept),
            "test": pages.free_running(test), "decoding": asdict(recipe.decoding),
            "seconds": round(time.perf_counter() - started, 1),
        }  # fmt: skip
        _save(run, model, config, data, pages.decoder_card(result))
        write_json(run / "result.json", result)
        if page:
            with results_come_first(run / "report.html"):
                pages.tell_decoder(run, config, result, test, model, data.valid_set)
        log.info(
            "test, free-running: BLEU-1 %.2f (no result without controls: `spikeloom evaluate run=%s`)",
            result["test"]["bleu_word"][0], run,
        )  # fmt: skip
        return result


def report(config: TrainConfig) -> None:
    """Draw report.html of a finished run again: the model is read and decodes the test trials, nothing is trained."""
    run = Path(config.run)
    result = finished(run)
    decodes, model = isinstance(config.model, E2TPTRRecipe), load_model(run / "model").model
    data = TrialDataModule(
        features=config.features, trials=read(config) if decodes else read(config, ("train", "valid")),
        tokenizer=load_tokenizer(run / "model"), batch_size=config.trainer.batch_size, seed=config.seed,
        num_workers=config.trainer.num_workers,
    )  # fmt: skip
    data.setup()
    assert data.tokenizer is not None
    test = decode(model, data.test_set, data.tokenizer, config.model.decoding, config.seed) if decodes else None
    with contents(run / "result.json", UNFINISHED):
        if test is not None:
            pages.tell_decoder(run, config, result, test, model, data.valid_set)
        else:
            pages.tell_pretraining(run, config, result, model, data.valid_set)


def announce(config: TrainConfig, data: TrialDataModule, module: Any) -> None:
    """What is about to happen, in one line."""
    parameters = sum(p.numel() for p in module.model.parameters())
    log.info(
        "%s: %s training and %s validation trials, %s with %s parameters, %d epochs of batches of %d, seed %d -> %s",
        config.name, f"{len(data.train_set):,}", f"{len(data.valid_set):,}", type(module.model).__name__,
        f"{parameters:,}", config.trainer.epochs, config.trainer.batch_size, config.seed, config.run,
    )  # fmt: skip


def pretraining_module(config: TrainConfig, data: TrialDataModule) -> PretrainingModule:
    """A CET-MAE before its first step; the map of a text target begins with the training sentences."""
    module = PretrainingModule(config, data.spec)
    if (vectors := data.train_set.target) is not None:
        module.model.start_target(vectors)
    return module


def of_sets(config: TrainConfig, sets: Mapping[str, EncodedTrials], vocab_size: int, seed: int) -> TrialDataModule:
    """Trials that are encoded already, as batches."""
    data = TrialDataModule(
        sets=sets, vocab_size=vocab_size, batch_size=config.trainer.batch_size, seed=seed,
        num_workers=config.trainer.num_workers,
    )  # fmt: skip
    data.setup()
    return data


def learn_decoder(
    config: TrainConfig,
    folder: Path,
    data: TrialDataModule | Mapping[str, EncodedTrials],
    *,
    seed: int,
    resume: bool = False,
    encoder: dict[str, torch.Tensor] | None = None,
    inherit: bool = True,
    say: bool = True,
) -> tuple[E2TPTR, dict[str, Any]]:
    """A decoder of the epoch with the lowest validation loss, and what its training came to (`FitResult.keep_best`;
    empty after fast_dev_run). `encoder`: weights of a CET-MAE to inherit from, None: those of `config.pretrained`;
    `inherit` false: from none."""
    assert config.pretrained is not None
    source = load_model(Path(config.pretrained) / "model").model
    sizes = load_config(Path(config.pretrained)).model.sizes
    if not isinstance(data, TrialDataModule):
        data = of_sets(config, data, source.vocab_size, seed)
    lightning.seed_everything(seed, verbose=False)
    module = DecodingModule(config, data.spec, sizes=sizes)
    if inherit:
        taken = module.model.inherit(encoder if encoder is not None else source.state_dict())
        if say:
            log.info("%d tensors inherited from %s", taken, config.pretrained)
    if say:
        announce(config, data, module)
    fitted = fit(module, data, config, folder, seed=seed, pick="best_loss", resume=resume, quiet=not say)
    return module.model, {} if fitted.best is None else fitted.keep_best(module)


def learn_encoder(
    config: TrainConfig, folder: Path, sets: Mapping[str, EncodedTrials], seed: int
) -> dict[str, torch.Tensor]:
    """Weights of a CET-MAE pretrained on `sets` as the one of `config.pretrained` was, with another seed."""
    before = load_config(Path(config.pretrained or ""))
    for encoded in sets.values():
        encoded.add_target(before.model.sizes.text_target)
    vocab_size = load_model(Path(config.pretrained or "") / "model").model.vocab_size
    data = of_sets(before, sets, vocab_size, seed)
    lightning.seed_everything(seed, verbose=False)
    module = pretraining_module(before, data)
    fit(module, data, before, folder, seed=seed, pick="best_loss", quiet=True).keep_best(module)
    weights: dict[str, torch.Tensor] = module.model.state_dict()
    return weights


def like_pretrained(config: TrainConfig, folder: Path) -> TrainConfig:
    """The configuration with samples, split and tokenizer of its pre-training. Raises ValueError for another model."""
    before = load_config(folder)
    finished = (folder / "result.json").is_file() or (folder / CONVERTED).is_file()
    if not isinstance(before.model, CETMAERecipe) or not finished:
        raise ValueError(f"{folder} is not a finished pre-training; give {PRETRAIN_FIRST}")
    text = replace(before.features.text, tokenizer=str(folder / "model"))
    return replace(config, features=replace(before.features, text=text))


def check_unseen(trials: TrialSplits, pretrained: Path) -> None:
    """Raise ValueError where a sentence that pre-training was fitted to is in valid or test now."""
    if (pretrained / CONVERTED).is_file():
        log.warning(
            "%s was converted: which sentences it was trained on is not known, and test sentences may be among them",
            pretrained,
        )
        return
    fitted = {key for key, fate in load_split(pretrained / "split").keys.items() if fate.split == "train"}
    held_out = {key for key, fate in trials.split.keys.items() if fate.split in ("valid", "test")}
    if shared := fitted & held_out:
        raise ValueError(
            f"{len(shared)} held-out sentences were in the pre-training of {pretrained}; use the same data and "
            "features.split for both"
        )


@torch.no_grad()
def decode(
    model: E2TPTR, trials: EncodedTrials, tokenizer: TextTokenizer, decoding: DecodingConfig, seed: int
) -> Decodings:
    """Free-running outputs of all trials, in their order; `seed`: of the training, to tell decoders apart."""
    outputs: list[str] = []
    for batch in trials.batches():
        outputs += tokenizer.decode(model.generate(batch.eeg, batch.mask, decoding))
    rows = trials.trials
    return Decodings(
        outputs=tuple(outputs), references=rows.texts, subjects=rows.subjects, tasks=rows.tasks,
        seeds=(seed,) * len(rows),
    )  # fmt: skip


def _rows(trials: TrialSplits, data: TrialDataModule) -> dict[str, Any]:
    sets = {"train": data.train_set, "valid": data.valid_set}
    return {
        **{f"{name}_rows": len(encoded) for name, encoded in sets.items()},
        "dropped": trials.dropped, "truncated_words": trials.truncated,
        "truncated_texts": sum(encoded.n_truncated for encoded in sets.values()),
    }  # fmt: skip


def _pruned(kept: Mapping[str, Any]) -> dict[str, Any]:
    return {"pruning": kept["pruning"]} if "pruning" in kept else {}


def _save(run: Path, model: Any, config: TrainConfig, data: TrialDataModule, card: str) -> None:
    assert data.tokenizer is not None
    save_model(
        run / "model", TrainedModel(model=model, features=config.features, class_names=()), card,
        also=data.tokenizer.save,
    )  # fmt: skip
