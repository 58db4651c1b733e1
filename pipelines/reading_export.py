"""What `spikeloom export` makes of a run on readings: the EEG encoder, and of a decoder one step of writing as well."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bci.e2t_ptr import E2TPTR
from bci.parts import DecoderStep, EEGPart, example_steps
from bci.readings import ReadingSet, read_splits
from pipelines.schema import TrainConfig

STEP_IDS = 8  # ids written before the step that is exported


class Part(NamedTuple):
    """A module to export into `folder` of the export; batches: one tuple of inputs each; measured: on what."""

    folder: str
    name: str
    module: nn.Module
    batches: list[tuple[Tensor, ...]]
    measured: str


def example_batches(trained: Any, config: TrainConfig, n_batches: int, batch_size: int) -> tuple[list[Tensor], str]:
    """EEG of validation readings without padding [L, B, 840]: longer ones are cut to the median length."""
    features = config.features
    valid = read_splits(config.data.build(), features.samples.build(), features.split, ("valid",))["valid"]
    batches = unpadded(valid, n_batches, batch_size)
    return batches, f"{len(batches)} batches of validation readings, {len(batches[0])} tokens, no padding"


def unpadded(readings: ReadingSet, n: int, batch_size: int) -> list[Tensor]:
    """Up to `n` batches [L, B, 840] of equal size. Raises ValueError for fewer than two readings long enough."""
    if n < 1 or batch_size < 2:
        raise ValueError(f"got batches={n} of batch_size={batch_size}; use at least 1 of 2")
    steps = sorted(readings.lengths)[len(readings) // 2]
    whole = [row for row, length in enumerate(readings.lengths) if length >= steps]
    size = min(batch_size, len(whole))
    if size < 2:
        raise ValueError(f"got {len(readings)} readings, {size} of median length or longer; use a set of at least 3")
    groups = [whole[i : i + size] for i in range(0, len(whole) - size + 1, size)][:n]
    return [torch.stack([torch.from_numpy(readings.eeg[row][:steps]) for row in rows], dim=1) for rows in groups]


def export_parts(trained: Any, config: TrainConfig, n_batches: int, batch_size: int) -> list[Part]:
    """The EEG encoder; for a decoder, its step first and the encoder in a folder of its own."""
    batches, measured = example_batches(trained, config, n_batches, batch_size)
    model = trained.model.eval()
    encoder: list[tuple[Tensor, ...]] = [(batch,) for batch in batches]
    if not isinstance(model, E2TPTR):
        return [Part("", f"{config.name} EEG encoder", EEGPart(model), encoder, measured)]
    n_ids = min(STEP_IDS, model.bart.config.max_position_embeddings - 1)
    steps: list[tuple[Tensor, ...]] = [example_steps(model, batch, n_ids) for batch in batches]
    n_ids = min(len(ids) for _, ids in steps)
    steps = [(states, ids[:n_ids]) for states, ids in steps]
    return [
        Part("", f"{config.name} decoder step", DecoderStep(model), steps, f"{measured}, {n_ids} ids already written"),
        Part("encoder", f"{config.name} EEG encoder", EEGPart(model), encoder, measured),
    ]
