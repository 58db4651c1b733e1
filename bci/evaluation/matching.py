"""How well a CET-MAE matches the EEG of a trial with its sentence: ranks in a gallery, and the contrastive loss.

Everything here is unmasked. Evaluate by the rank among sentences of one length: raw loss and top-k also rise with the
number of words read, which no content is needed for.
"""

from typing import Any

import torch
from torch import Tensor

from spikeloom.bci.data.datamodule import EncodedTrials, sentence_vectors
from spikeloom.bci.evaluation.decodings import Decodings
from spikeloom.bci.evaluation.retrieval import retrieval_permutation, retrieve, same_length, same_length_rank
from spikeloom.bci.evaluation.significance import Sentences
from spikeloom.bci.models.cet_mae import CETMAE
from spikeloom.bci.models.pretraining import info_nce

DRAWS, DRAWN = 30, 32  # batches of distinct sentences, one random reader each


@torch.no_grad()
def match(model: CETMAE, trials: EncodedTrials, seed: int, n_permutations: int = 999) -> dict[str, Any]:
    """Retrieval over the unique sentences of `trials`; values for JSON. None where the gallery is too small."""
    rows = trials.trials
    sentences = Sentences.of(
        Decodings(
            outputs=rows.texts, references=rows.texts, subjects=rows.subjects, tasks=rows.tasks, seeds=(0,) * len(rows)
        )
    )
    own = sentences.of_row
    eeg = torch.cat([model.eeg_vector(batch.eeg, batch.mask) for batch in trials.batches()])
    first = torch.tensor([int((own == i).argmax()) for i in range(len(sentences))])  # a row that read each sentence
    target = None if model.config.text_target is None else sentence_vectors(model.config.text_target, rows.texts)
    text = torch.cat(
        [model.text_vector(trials.ids[:, part], None if target is None else target[part]) for part in first.split(64)]
    )
    scores = (eeg @ text.T).double().numpy()
    near = same_length(sentences.n_words, own)
    loss, top1, top5 = contrast(model, eeg, text, torch.from_numpy(own), torch.Generator().manual_seed(seed))
    try:
        rank = same_length_rank(scores, own, sentences.n_words)
    except ValueError:
        rank = None
    return {
        "loss": loss, "top1": top1, "top5": top5, "drawn": min(DRAWN, len(sentences)), "same_length_rank": rank,
        "p": retrieval_permutation(scores, sentences, n_permutations, seed).p,
        "gallery": retrieve(scores, own).as_dict(),
        "same_length_gallery": retrieve(scores, own, near).as_dict() if (near.sum(1) > 1).any() else None,
    }  # fmt: skip


def contrast(
    model: CETMAE, eeg: Tensor, text: Tensor, of_row: Tensor, generator: torch.Generator
) -> tuple[float, float, float]:
    """Contrastive loss, top-1 and top-5 (EEG asks for its text), means over `DRAWS` draws of distinct sentences.

    eeg: unit vectors [rows, D]; text: [n, D]; of_row: sentence of a row.
    """
    drawn = []
    for _ in range(DRAWS):
        shuffled = torch.randperm(len(of_row), generator=generator)
        chosen = torch.randperm(len(text), generator=generator)[:DRAWN]
        rows = torch.stack([shuffled[of_row[shuffled] == sentence][0] for sentence in chosen])
        loss = info_nce(eeg[rows], text[chosen], model.scale, chosen)
        similarity = eeg[rows] @ text[chosen].T
        rank = (similarity > similarity.diagonal()[:, None]).sum(1)
        drawn.append(torch.stack((loss, (rank < 1).float().mean(), (rank < 5).float().mean())))
    means = torch.stack(drawn).mean(0).tolist()
    return means[0], means[1], means[2]
