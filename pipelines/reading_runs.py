"""Training runs on readings: pre-training CET-MAE, and the E2T-PTR that inherits from it.

A decoder takes samples, split and tokenizer from the run it is pre-trained by, so that no sentence it is chosen or
tested on was ever fitted.
"""

import logging
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import torch

from accel.files import write_json
from bci.datamodule import EncodedReadings
from bci.e2t_ptr import E2TPTR, DecodingConfig, build_e2t_ptr
from bci.evaluation.decodings import Decodings
from bci.matching import match
from bci.readings import ReadingSet, SplitReadings, read_splits
from bci.recipes import CETMAERecipe, E2TPTRRecipe, ReadingConfig
from bci.tokenizer import TextTokenizer, load_tokenizer
from bci.zuco.splits import load_split
from pipelines import reading_pages
from pipelines.process import set_up
from pipelines.reading_tasks import Fitted, ReadingTask, decoding_losses, fit, pretraining_losses
from pipelines.runs import TrainedModel, load_config, load_model, save_config, save_model
from pipelines.schema import TrainConfig, check_kinds
from pipelines.train import claim_folder

log = logging.getLogger("spikeloom")
PRETRAIN_FIRST = "pretrained=RUN, the folder of a finished `spikeloom pretrain`"


def check(config: TrainConfig) -> None:
    """Raise ValueError where the configuration asks for what readings do not have."""
    check_kinds(config)
    if config.audit:
        raise ValueError("audit=true counts classes, which readings do not have; leave it out")


def read(config: TrainConfig, wanted: tuple[str, ...] = ("train", "valid", "test")) -> SplitReadings:
    """The readings a configuration names. Raises ValueError for features of another room."""
    features = config.features
    assert isinstance(features, ReadingConfig)
    return read_splits(config.data.build(), features.samples.build(), features.split, wanted)


def encode(config: TrainConfig, tokenizer: TextTokenizer, readings: ReadingSet) -> EncodedReadings:
    return EncodedReadings(readings, tokenizer, config.features.text.max_length)


def pretrain(config: TrainConfig, readings: SplitReadings | None = None) -> dict[str, Any]:
    """Pre-train a CET-MAE into `config.run` and return its result.json. No test row is kept, nothing is fitted to a
    valid one. `readings`: of this very configuration, where they are already in memory."""
    check(config)
    run = Path(config.run)
    if finished := claim_folder(run, config):
        return finished
    started = time.perf_counter()
    set_up(config.trainer.threads)
    readings = readings or read(config, ("train", "valid"))
    recipe: CETMAERecipe = config.model
    tokenizer = config.features.text.build(readings["train"].texts)
    sets = {name: encode(config, tokenizer, readings[name]) for name in ("train", "valid")}
    save_config(run, config)
    readings.split.save(run / "split")

    lightning.seed_everything(config.seed, verbose=False)
    model = recipe.sizes.build(tokenizer.vocab_size)
    task = ReadingTask(model, pretraining_losses(recipe.pretraining.build()), config.optimizer)
    fitted = fit(config, run, task, sets, seed=config.seed, resume=config.resume)
    result = {
        "name": config.name, "seed": config.seed, "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": tokenizer.vocab_size, "best_epoch": fitted.best_epoch, **_rows(readings, sets),
        "valid": reading_pages.at_epoch(run, fitted.best_epoch), **_pruned(fitted),
        "retrieval": match(model, sets["valid"], config.seed),
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    _save(run, TrainedModel(model=model, features=config.features, class_names=()), tokenizer,
          reading_pages.pretraining_card(result))  # fmt: skip
    reading_pages.tell_pretraining(run, config, result, model, sets["valid"])
    write_json(run / "result.json", result)
    log.info(
        "validation: contrastive %.3f, rank among sentences of one length %.3f (chance .5), epoch %d -> %s",
        result["valid"]["valid_contrastive"], result["retrieval"]["same_length_rank"], fitted.best_epoch, run,
    )  # fmt: skip
    return result


def train_decoder(config: TrainConfig, readings: SplitReadings | None = None) -> dict[str, Any]:
    """Fine-tune an E2T-PTR into `config.run`, decode the test readings freely, and return its result.json."""
    check(config)
    if config.pretrained is None:
        raise ValueError(f"a decoder inherits its encoder; add {PRETRAIN_FIRST}")
    pretrained = Path(config.pretrained)
    config = like_pretrained(config, pretrained)
    run = Path(config.run)
    if finished := claim_folder(run, config):
        return finished
    started = time.perf_counter()
    set_up(config.trainer.threads)
    readings = readings or read(config)
    check_unseen(readings, pretrained)
    tokenizer = load_tokenizer(pretrained / "model")
    sets = {name: encode(config, tokenizer, readings[name]) for name in ("train", "valid")}
    save_config(run, config)
    readings.split.save(run / "split")

    model, fitted = learn_decoder(config, run, sets, seed=config.seed, resume=config.resume)
    recipe: E2TPTRRecipe = config.model
    test = decode(model, encode(config, tokenizer, readings["test"]), tokenizer, recipe.decoding, config.seed)
    result = {
        "name": config.name, "seed": config.seed, "pretrained": config.pretrained,
        "parameters": sum(p.numel() for p in model.parameters()), "best_epoch": fitted.best_epoch,
        **_rows(readings, sets), "test_rows": len(test), "valid": reading_pages.at_epoch(run, fitted.best_epoch),
        **_pruned(fitted),
        "test": reading_pages.free_running(test), "decoding": asdict(recipe.decoding),
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    _save(run, TrainedModel(model=model, features=config.features, class_names=()), tokenizer,
          reading_pages.decoder_card(result))  # fmt: skip
    reading_pages.tell_decoder(run, config, result, test, model, sets["valid"])
    write_json(run / "result.json", result)
    log.info(
        "test, free-running: BLEU-1 %.2f (no result without controls: `spikeloom evaluate run=%s`)",
        result["test"]["bleu_word"][0], run,
    )  # fmt: skip
    return result


def learn_decoder(
    config: TrainConfig,
    folder: Path,
    sets: dict[str, EncodedReadings],
    *,
    seed: int,
    resume: bool = False,
    encoder: dict[str, torch.Tensor] | None = None,
    inherit: bool = True,
    say: bool = True,
) -> tuple[E2TPTR, Fitted]:
    """A decoder of the epoch with the lowest validation loss, and what its training came to. `encoder`:
    weights of a CET-MAE to inherit from, null: those of `config.pretrained`; `inherit` false: from none."""
    assert config.pretrained is not None
    source = load_model(Path(config.pretrained) / "model").model
    sizes = load_config(Path(config.pretrained)).model.sizes
    lightning.seed_everything(seed, verbose=False)
    model = build_e2t_ptr(sizes, source.vocab_size)
    if inherit:
        model.inherit(encoder if encoder is not None else source.state_dict())
    task = ReadingTask(model, decoding_losses, config.optimizer)
    return model, fit(config, folder, task, sets, seed=seed, resume=resume, say=say)


def learn_encoder(
    config: TrainConfig, folder: Path, sets: dict[str, EncodedReadings], seed: int
) -> dict[str, torch.Tensor]:
    """Weights of a CET-MAE pre-trained on `sets` as the one of `config.pretrained` was, with another seed."""
    before = load_config(Path(config.pretrained or ""))
    recipe: CETMAERecipe = before.model
    lightning.seed_everything(seed, verbose=False)
    model = recipe.sizes.build(load_model(Path(config.pretrained or "") / "model").model.vocab_size)
    task = ReadingTask(model, pretraining_losses(recipe.pretraining.build()), before.optimizer)
    fit(before, folder, task, sets, seed=seed, say=False)
    return model.state_dict()


def like_pretrained(config: TrainConfig, folder: Path) -> TrainConfig:
    """The configuration with samples, split and tokenizer of its pre-training. Raises ValueError for another model."""
    before = load_config(folder)
    if not isinstance(before.model, CETMAERecipe) or not (folder / "result.json").is_file():
        raise ValueError(f"{folder} is not a finished pre-training; give {PRETRAIN_FIRST}")
    text = replace(before.features.text, tokenizer=str(folder / "model"))
    return replace(config, features=replace(before.features, text=text))


def check_unseen(readings: SplitReadings, pretrained: Path) -> None:
    """Raise ValueError where a sentence that pre-training was fitted to is in valid or test now."""
    fitted = {key for key, fate in load_split(pretrained / "split").keys.items() if fate.split == "train"}
    held_out = {key for key, fate in readings.split.keys.items() if fate.split in ("valid", "test")}
    if shared := fitted & held_out:
        raise ValueError(
            f"{len(shared)} held-out sentences were in the pre-training of {pretrained}; use the same data and "
            "features.split for both"
        )


@torch.no_grad()
def decode(
    model: E2TPTR, readings: EncodedReadings, tokenizer: TextTokenizer, decoding: DecodingConfig, seed: int
) -> Decodings:
    """Free-running outputs of all readings, in their order; `seed`: of the training, to tell decoders apart."""
    outputs: list[str] = []
    for batch in readings.batches():
        outputs += tokenizer.decode(model.generate(batch.eeg, batch.mask, decoding))
    rows = readings.readings
    return Decodings(
        outputs=tuple(outputs), references=rows.texts, subjects=rows.subjects, tasks=rows.tasks,
        seeds=(seed,) * len(rows),
    )  # fmt: skip


def _rows(readings: SplitReadings, sets: dict[str, EncodedReadings]) -> dict[str, Any]:
    return {
        **{f"{name}_rows": len(encoded) for name, encoded in sets.items()},
        "dropped": readings.dropped, "truncated_words": readings.truncated,
        "truncated_texts": sum(encoded.n_truncated for encoded in sets.values()),
    }  # fmt: skip


def _pruned(fitted: Fitted) -> dict[str, Any]:
    return {} if fitted.pruning is None else {"pruning": fitted.pruning}


def _save(run: Path, trained: TrainedModel, tokenizer: TextTokenizer, card: str) -> None:
    save_model(run / "model", trained, card, also=tokenizer.save)
