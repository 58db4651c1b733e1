"""What `spikeloom export` makes of a run on trials: the EEG encoder, and of a decoder one step of writing as well."""

import logging
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spikeloom.bci.data.datamodule import EncodedTrials
from spikeloom.bci.data.tokenizer import PAD, load_tokenizer
from spikeloom.bci.data.trials import TrialSet, read_splits
from spikeloom.bci.models.e2t_ptr import E2TPTR
from spikeloom.bci.models.export_parts import DecoderStep, EEGPart, example_steps
from spikeloom.bci.models.pretraining import PretrainingBatch
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.export.training_steps import PretrainingStep, TeacherForcedStep, pretraining_inputs

log = logging.getLogger("spikeloom")
TRAINING = "training_step"  # folder of a whole training step
STEP_IDS = 8  # ids written before the step that is exported


class Part(NamedTuple):
    """A module to export into `folder` of the export; batches: one tuple of inputs each; measured: on what. A training
    step has a loss at its end, and no other format."""

    folder: str
    name: str
    module: nn.Module
    batches: list[tuple[Tensor, ...]]
    measured: str
    is_training: bool = False


def example_batches(trained: Any, config: TrainConfig, n_batches: int, batch_size: int) -> tuple[list[Tensor], str]:
    """EEG of validation trials without padding [L, B, 840]: longer ones are cut to the median length."""
    features = config.features
    valid = read_splits(config.data.build(), features.samples.build(), features.split, ("valid",))["valid"]
    batches = unpadded(valid, n_batches, batch_size)
    return batches, f"{len(batches)} batches of validation trials, {len(batches[0])} tokens, no padding"


def unpadded(trials: TrialSet, n: int, batch_size: int) -> list[Tensor]:
    """Up to `n` batches [L, B, 840] of equal size. Raises ValueError for fewer than two trials long enough."""
    steps = sorted(trials.lengths)[len(trials) // 2]
    groups = equal_rows(trials, n, batch_size)
    return [torch.stack([torch.from_numpy(trials.eeg[row][:steps]) for row in rows], dim=1) for rows in groups]


def equal_rows(trials: TrialSet, n: int, batch_size: int) -> list[list[int]]:
    """Rows of up to `n` batches of trials of at least the median length. Raises ValueError for fewer than two."""
    if n < 1 or batch_size < 2:
        raise ValueError(f"got batches={n} of batch_size={batch_size}; use at least 1 of 2")
    steps = sorted(trials.lengths)[len(trials) // 2]
    whole = [row for row, length in enumerate(trials.lengths) if length >= steps]
    size = min(batch_size, len(whole))
    if size < 2:
        raise ValueError(f"got {len(trials)} trials, {size} of median length or longer; use a set of at least 3")
    return [whole[i : i + size] for i in range(0, len(whole) - size + 1, size)][:n]


def export_parts(trained: Any, config: TrainConfig, n_batches: int, batch_size: int) -> list[Part]:
    """The EEG encoder; for a decoder, its step first and the encoder in a separate folder; the whole training step."""
    batches, measured = example_batches(trained, config, n_batches, batch_size)
    model = trained.model.eval()
    encoder: list[tuple[Tensor, ...]] = [(batch,) for batch in batches]
    if not isinstance(model, E2TPTR):
        part = Part("", f"{config.name} EEG encoder", eeg_stream(model), encoder, measured)
        if model.target is not None:
            log.warning("the training step is not exported: its text target comes from an encoder outside the model")
            return [part]
        return [part, training_step(trained, config, n_batches, batch_size)]
    if model.decoder != "bart":
        log.warning(
            "only the EEG encoder is exported: the step of model.decoder=%s has no parts of a graph yet", model.decoder
        )
        return [Part("", f"{config.name} EEG encoder", eeg_stream(model), encoder, measured)]
    n_ids = min(STEP_IDS, model.positions - 1)
    steps: list[tuple[Tensor, ...]] = [example_steps(model, batch, n_ids) for batch in batches]
    n_ids = min(len(ids) for _, ids in steps)
    steps = [(states, ids[:n_ids]) for states, ids in steps]
    return [
        Part("", f"{config.name} decoder step", DecoderStep(model), steps, f"{measured}, {n_ids} ids already written"),
        Part("encoder", f"{config.name} EEG encoder", eeg_stream(model), encoder, measured),
        training_step(trained, config, n_batches, batch_size),
    ]


def eeg_stream(model: nn.Module) -> EEGPart:
    """The EEG encoder without what belongs to the other streams of a CET-MAE: a copy."""
    part = EEGPart(model)  # type: ignore[arg-type]
    part.front = deepcopy(part.front)
    for module in part.front.modules():
        if isinstance(module, nn.ModuleDict):
            for stream in [name for name in module if name != part.front.stream]:
                del module[stream]
    return part


def training_step(trained: Any, config: TrainConfig, n_batches: int, batch_size: int) -> Part:
    """The whole step from EEG and text to the loss, all trained parameters in it: of a CET-MAE its pretraining, of an
    E2T-PTR its teacher-forced fine-tuning. Longer trials and texts are cut to one length, so that nothing is padded."""
    features, model = config.features, trained.model.eval()
    valid = read_splits(config.data.build(), features.samples.build(), features.split, ("valid",))["valid"]
    encoded = EncodedTrials(valid, load_tokenizer(Path(config.run) / "model"), features.text.max_length)
    groups = equal_rows(valid, n_batches, batch_size)
    steps = sorted(valid.lengths)[len(valid) // 2]
    shortest = min(int((encoded.ids[:, rows] != PAD).sum(0).min()) for rows in groups)
    eegs = [torch.stack([torch.from_numpy(valid.eeg[row][:steps]) for row in rows], dim=1) for rows in groups]
    texts = [encoded.ids[:shortest, rows] for rows in groups]
    measured = f"{len(groups)} batches of validation trials, {steps} EEG and {shortest} text tokens, no padding"
    masks = [torch.ones(eeg.shape[:2], dtype=torch.bool) for eeg in eegs]
    if isinstance(model, E2TPTR):
        batches: list[tuple[Tensor, ...]] = list(zip(eegs, masks, texts, strict=True))
        return Part(TRAINING, f"{config.name} training step", TeacherForcedStep(model), batches, measured, True)
    recipe, generator = config.model.pretraining, torch.Generator().manual_seed(config.seed)
    drawn = [
        pretraining_inputs(
            PretrainingBatch(eeg, mask, ids, encoded.sentence[rows]), recipe, model.vocab_size - 1, generator
        )
        for eeg, mask, ids, rows in zip(eegs, masks, texts, groups, strict=True)
    ]
    masked = min(len(inputs.rows) for inputs in drawn)  # as many answers in every batch
    batches = [tuple(i._replace(rows=i.rows[:masked], answers=i.answers[:masked])) for i in drawn]
    return Part(TRAINING, f"{config.name} pretraining step", PretrainingStep(model, recipe), batches, measured, True)
