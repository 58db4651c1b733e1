"""Curriculum over time resolutions by distillation: KDCL (arXiv 2412.12858), PTCD in Neural Networks 195:108253.

Many short time steps are easy, few long ones are hard, and no weight of a SpikeSCR depends on their number. So a model
is trained at the finest resolution first; its weights start the student of the next coarser one, and it teaches it:

    zbar[b] = 1/len_b sum over valid t of z[t, b]                         time-mean logits, comparable between lengths
    KL      = tau^2 mean_b sum_c p_T (log p_T - log p_S),   p = softmax(zbar / tau)
    L       = CE + kl_weight KL

The student hears a clip augmented and coarse, the teacher the same clip untouched and fine. The teacher is frozen and
in evaluation mode, where what it says of a clip depends on that clip alone: it is asked once a clip before the stage
begins, not again in every epoch. No features are distilled and nothing is read from the test clips.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from spikeloom.accel.common.batches import BatchIndex, CacheBudget
from spikeloom.accel.common.files import brief
from spikeloom.speech.batches import FeatureSet, SpeechBatch
from spikeloom.speech.models.prediction import predict
from spikeloom.speech.models.readout import mean_logits, output_lengths, read_out
from spikeloom.speech.models.spikescr import SpikeSCR


def check_resolutions(resolutions_ms: Sequence[float]) -> None:
    """Raises ValueError unless there are at least two positive resolutions, finest first, all different."""
    rising = all(fine < coarse for fine, coarse in zip(resolutions_ms, resolutions_ms[1:], strict=False))
    if len(resolutions_ms) < 2 or not rising or min(resolutions_ms) <= 0 or math.isinf(resolutions_ms[-1]):
        raise ValueError(
            f"resolutions_ms must rise strictly from the finest to the coarsest, got {list(resolutions_ms)}; "
            "use for example [5,10,25]"
        )


def kl_on_mean_logits(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL of the equations above, from time-mean logits [B, classes] of both; a scalar."""
    log_p_student = F.log_softmax(student / temperature, dim=1)
    log_p_teacher = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p_student, log_p_teacher, reduction="batchmean", log_target=True)


class PairedBatch(NamedTuple):
    """What the student hears of some clips, and the teacher's time-mean logits [B, classes] for the same clips."""

    student: SpeechBatch
    teacher_logits: Tensor

    @property
    def labels(self) -> Tensor:
        return self.student.labels


@dataclass(frozen=True, kw_only=True)
class PairedSet(Dataset[PairedBatch]):
    """One split for a stage: the student's coarse view, and by sample id the teacher's logits [n, classes]."""

    student: FeatureSet
    teacher_logits: Tensor

    def __post_init__(self) -> None:
        if len(self.student) != len(self.teacher_logits):
            raise ValueError(
                f"got {len(self.student)} clips for the student and {len(self.teacher_logits)} judged by the teacher; "
                "use two views of the same clips"
            )

    @property
    def budget(self) -> CacheBudget:
        return self.student.budget

    def __len__(self) -> int:
        return len(self.student)

    def __getitem__(self, draw: BatchIndex) -> PairedBatch:
        return PairedBatch(self.student[draw], self.teacher_logits[draw.sample_ids])


def pair(student: FeatureSet, teacher: SpikeSCR, fine: FeatureSet) -> PairedSet:
    """Ask `teacher` about every clip of its `fine` view, unaugmented, and pair its answers with the student's view.

    The teacher is only read: evaluation mode, no gradients, nothing written. Raises ValueError when the views hold
    other clips or the fine one is augmented.
    """
    if fine.augmentation is not None:
        raise ValueError("the teacher's view is augmented; build it without augmentation")
    if not torch.equal(student.labels, fine.labels):
        raise ValueError("the views of student and teacher hold different clips; build both from the same split")
    return PairedSet(student=student, teacher_logits=predict(teacher, fine, mean_logits))


@dataclass
class DistillationConfig:
    """temperature: tau of the equations above. kl_weight: what the teacher counts beside the labels; 0 ignores it."""

    temperature: float = 2.0
    kl_weight: float = 0.5

    def build(self) -> "Distillation":
        return Distillation(self)


class Judgement(NamedTuple):
    """log-probabilities of the classes [B, classes] for the labels' loss, and the KL to the teacher, a scalar."""

    log_p: Tensor
    kl: Tensor


class Distillation:
    """One forward pass of the student, read out twice: for its labels and for its teacher."""

    def __init__(self, config: DistillationConfig) -> None:
        if not (math.isfinite(config.temperature) and config.temperature > 0):
            raise ValueError(f"temperature must be positive, got {config.temperature}; use 2.0")
        if not (math.isfinite(config.kl_weight) and config.kl_weight >= 0):
            raise ValueError(f"kl_weight must not be negative, got {config.kl_weight}; use 0.5, or 0 for labels alone")
        self.temperature, self.kl_weight = config.temperature, config.kl_weight

    def __call__(self, student: nn.Module, batch: PairedBatch) -> Judgement:
        heard = batch.student
        logits = student(heard.features.transpose(0, 1), heard.lengths)
        zbar = mean_logits(logits, output_lengths(student, heard.lengths))
        kl = kl_on_mean_logits(zbar, batch.teacher_logits, self.temperature)
        return Judgement(read_out(student, logits, heard.lengths), kl)


def hand_over(checkpoint: Path, *models: nn.Module) -> None:
    """Copy weights and BN buffers of a checkpoint, bit by bit, into each of `models`.

    Raises ValueError naming the file when it is missing or damaged, and the keys when it holds another model; the
    models are untouched then.
    """
    if not checkpoint.is_file():
        raise ValueError(f"{checkpoint} is missing, so there is no teacher; train the stage before again")
    try:
        stored = torch.load(checkpoint, weights_only=True, map_location="cpu")["state_dict"]
    except Exception as error:
        raise ValueError(f"{checkpoint} is damaged ({brief(error)}); train its stage again") from error
    weights = {key.removeprefix("model."): value for key, value in stored.items() if key.startswith("model.")}
    for model in models:
        wanted = model.state_dict()
        wrong = [f"{key} is missing" for key in wanted.keys() - weights.keys()]
        wrong += [f"{key} is not in the model" for key in weights.keys() - wanted.keys()]
        wrong += [
            f"{key} has shape {tuple(weights[key].shape)}, the model {tuple(wanted[key].shape)}"
            for key in wanted.keys() & weights.keys()
            if wanted[key].shape != weights[key].shape
        ]
        if wrong:
            raise ValueError(
                f"{checkpoint} does not fit the student: {'; '.join(sorted(wrong)[:4])}"
                f"{f' and {len(wrong) - 4} more keys' if len(wrong) > 4 else ''}; use one model for all stages"
            )
    for model in models:
        model.load_state_dict(weights)
