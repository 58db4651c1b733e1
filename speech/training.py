"""How a speech batch becomes class probabilities: the only thing a training task must know about this domain."""

import torch
from torch import Tensor

from speech.datamodule import Draw, FeatureSet, SpeechBatch
from speech.spikescr import SpikeSCR, log_mean_probability

PREDICTION_BATCH = 64


def speech_log_probabilities(model: SpikeSCR, batch: SpeechBatch) -> Tensor:
    """log of the class probabilities averaged over the valid steps: batch [B, T, N] -> [B, classes]."""
    return log_mean_probability(model(batch.features.transpose(0, 1), batch.lengths), batch.lengths)


def predict(model: SpikeSCR, features: FeatureSet) -> Tensor:
    """log-probabilities [n, classes] of every clip of a set, in its order, in evaluation mode."""
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        parts = [
            speech_log_probabilities(model, features[Draw(0, ids)])
            for ids in torch.arange(len(features)).split(PREDICTION_BATCH)
        ]
    model.train(was_training)
    return torch.cat(parts)
