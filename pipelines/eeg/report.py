"""What people read about a run on trials: the page, the model card, and the figures both are made of."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikeloom.accel.common.batches import BatchIndex
from spikeloom.accel.common.charts import loss_curves
from spikeloom.accel.common.report import Section, Table
from spikeloom.accel.common.sizes import flat
from spikeloom.bci.data.datamodule import EncodedTrials
from spikeloom.bci.evaluation.decodings import Decodings
from spikeloom.bci.evaluation.diversity import diversity
from spikeloom.bci.evaluation.metrics import measure
from spikeloom.bci.models.cet_mae import CETMAE
from spikeloom.bci.models.e2t_ptr import E2TPTR
from spikeloom.bci.reports.page import Findings, eeg_report
from spikeloom.bci.zuco.leakage import check_split
from spikeloom.bci.zuco.splits import load_split
from spikeloom.bci.zuco.summary import Summary, summarise
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.reports.pruning import pruning_sections
from spikeloom.pipelines.training.run_dir import history

log = logging.getLogger("spikeloom")
SHOWN = 6  # sentences whose decodings a page shows


def free_running(decodings: Decodings) -> dict[str, Any]:
    """Metrics of free-running outputs; not yet a result, which takes controls."""
    metrics = measure(decodings.outputs, decodings.references)
    return {**metrics.as_dict(), **diversity(decodings).as_dict()}


def learning_curve(run: Path, best_epoch: int, caption: str) -> Section:
    """Every loss of metrics.csv, training and validation; epochs count from 1."""
    return loss_curves(history(run), best_epoch, caption)


@torch.enable_grad()
def saliency(model: CETMAE | E2TPTR, trials: EncodedTrials, n_rows: int = 128) -> np.ndarray:
    """float `[840]`: mean absolute gradient of the loss of a decoder, or of the match of a CET-MAE with the own
    sentence, with respect to each feature, over the tokens of some trials."""
    batch = trials[BatchIndex(0, torch.arange(min(n_rows, len(trials))))]
    eeg = batch.eeg.clone().requires_grad_()
    if isinstance(model, E2TPTR):
        loss = model.loss(eeg, batch.mask, batch.ids)
    else:
        loss = (model.eeg_vector(eeg, batch.mask) * model.text_vector(batch.ids, batch.target)).sum(1).mean()
    (gradient,) = torch.autograd.grad(loss, eeg)
    importance: np.ndarray = gradient[batch.mask].abs().mean(0).double().numpy()
    return importance


def summary_of(config: TrainConfig) -> Summary:
    """One more pass over the recordings, for the page."""
    return summarise(config.data.build(), config.features.samples.build())


def tell_pretraining(
    run: Path, config: TrainConfig, result: dict[str, Any], model: CETMAE, valid: EncodedTrials
) -> None:
    """report.html of a pre-training."""
    eeg_report(run / "report.html", Findings(
        title=f"{result['name']}: CET-MAE with {result['parameters']:,} parameters",
        verdict=matched(result["retrieval"]),
        assessment=[learning_curve(run, result["best_epoch"], PRETRAINING_CURVE), matching(result["retrieval"]),
                   *pruning_sections(run, result)],
        saliency=saliency(model, valid), saliency_measure="the match between a trial and its sentence",
        leakage=check_split(load_split(run / "split")), summary=summary_of(config), config=settings(config, result),
    ))  # fmt: skip


def tell_decoder(
    run: Path, config: TrainConfig, result: dict[str, Any], test: Decodings, model: E2TPTR, valid: EncodedTrials
) -> None:
    """report.html of a decoder that has no controls yet."""
    rows = [(test.references[row], test.outputs[row] or "(nothing)") for row in examples(test.references)]
    decodes = Section(
        "What it wrote", "Free-running: the decoder sees the EEG and its own words, never the text.",
        table=Table(("read", "written"), rows),
    )  # fmt: skip
    eeg_report(run / "report.html", Findings(
        title=f"{result['name']}: E2T-PTR with {result['parameters']:,} parameters",
        verdict="Nothing is known yet about its use of the EEG: no control was trained. "
        f"`spikeloom evaluate run={run}` trains them and evaluates. BLEU-1 of "
        f"{result['test']['bleu_word'][0]:.2f} on unseen sentences, free-running, says nothing by itself.",
        assessment=[
            decodes, learning_curve(run, result["best_epoch"], DECODER_CURVE), *pruning_sections(run, result),
        ],
        saliency=saliency(model, valid), saliency_measure="the loss of the decoder",
        leakage=check_split(load_split(run / "split")), config=settings(config, result),
    ))  # fmt: skip


PRETRAINING_CURVE = (
    "loss: what is minimised; eeg: squared error at masked tokens, 1 for a mean of zero; text: cross-entropy of masked "
    "ids in nats; contrastive: ln of the batch by chance."
)
DECODER_CURVE = (
    "Cross-entropy of the next id given the true ones before it, in nats. It chooses the epoch; it is no result."
)


def matched(found: Mapping[str, Any]) -> str:
    """The matching of EEG and text in one line."""
    rank, p = found["same_length_rank"], found["p"]
    if rank is None or p >= 0.05:
        return f"EEG and text are not matched beyond the length of sentences on unseen sentences (p = {p:.3f})."
    return (
        f"EEG and text are matched beyond the length of sentences: on unseen sentences {100 * rank:.0f} % of the "
        f"others of one length fit better than the own one (chance 50 %, p = {p:.3f})."
    )


def first(top: Mapping[Any, float]) -> float:
    """The value of rank 1; a table that was read from JSON has text for ranks."""
    return top[1] if 1 in top else top["1"]


def matching(found: Mapping[str, Any]) -> Section:
    """Retrieval as a table beside chance."""
    n, gallery = found["drawn"], found["gallery"]
    rows = [
        (f"contrastive loss, {n} sentences (nats)", f"{found['loss']:.3f}", f"{np.log(n):.3f}"),
        (f"own sentence first of {n}", f"{100 * found['top1']:.1f} %", f"{100 / n:.1f} %"),
        (f"own sentence among the first five of {n}", f"{100 * found['top5']:.1f} %", f"{500 / n:.1f} %"),
        (f"first of all {gallery['gallery']:.0f}", f"{100 * first(gallery['top']):.1f} %",
         f"{100 * first(gallery['chance_top']):.1f} %"),
        ("mean reciprocal rank", f"{gallery['mrr']:.3f}", f"{gallery['chance_mrr']:.3f}"),
    ]  # fmt: skip
    if found["same_length_rank"] is not None:
        rows.append(("others of one length that fit better", f"{100 * found['same_length_rank']:.1f} %", "50.0 %"))
    rows.append(("p, sentences permuted", f"{found['p']:.3f}", ""))
    return Section(
        "Which sentence was it?",
        "EEG asks for its sentence. The number of words read gives the length away, so only the last two lines tell "
        "content; the others rise without any.",
        table=Table(("measure", "found", "chance"), rows),
    )


def settings(config: TrainConfig, result: Mapping[str, Any]) -> dict[str, object]:
    """Everything needed to run this again, dotted."""
    return flat(asdict(config)) | {key: value for key, value in result.items() if not isinstance(value, dict)}


def examples(references: Sequence[str], k: int = SHOWN) -> list[int]:
    """Rows of `k` different sentences, evenly over all, read by one reader after the other."""
    rows: dict[str, list[int]] = {}
    for row, sentence in enumerate(references):
        rows.setdefault(sentence, []).append(row)
    trials = list(rows.values())
    k = min(k, len(trials))
    chosen = [trials[i * len(trials) // k] for i in range(k)]
    return [readers[i % len(readers)] for i, readers in enumerate(chosen)]


def pretraining_card(result: dict[str, Any]) -> str:
    found = result["retrieval"]
    rank = "too few sentences" if found["same_length_rank"] is None else f"{found['same_length_rank']:.3f} (chance 0.5)"
    return f"""---
library_name: spikeloom
tags: [eeg, masked-autoencoder]
---
# CET-MAE, {result["parameters"]:,} parameters

Restores masked EEG and text of a trial, and matches the two.

| | |
|---|---|
| data | {result["name"]}, {result["train_rows"]:,} train trials, {result["valid_rows"]:,} to choose the epoch |
| validation losses, epoch {result["best_epoch"]} | {
        ", ".join(f"{k.removeprefix('valid_')} {v:.3f}" for k, v in result["valid"].items())
    } |
| rank among sentences of one length | {rank}, p = {found["p"]:.3f} |
| seed | {result["seed"]}, one run |

Load with `spikeloom.bci.models.cet_mae.CETMAE.from_pretrained(FOLDER)`; `tokenizer.json` makes the ids,
`preprocessor_config.json` says
how trials become samples and how they were split.
Limits: one seed; validation sentences chose the epoch; nothing here says that text can be decoded.
"""


def decoder_card(result: dict[str, Any]) -> str:
    bleu = " / ".join(f"{value:.2f}" for value in result["test"]["bleu_word"])
    return f"""---
library_name: spikeloom
tags: [eeg, brain-to-text]
---
# E2T-PTR, {result["parameters"]:,} parameters

Writes text for the EEG of a trial, freely: greedy or by beams.

| | |
|---|---|
| data | {result["name"]}, {result["train_rows"]:,} train trials, {result["valid_rows"]:,} to choose the epoch |
| encoder | inherited from {result["pretrained"]} |
| BLEU-1..4 over words, free-running, {result["test_rows"]:,} trials of unseen sentences | {bleu} |
| seed | {result["seed"]}, one run |

Load with `spikeloom.bci.models.e2t_ptr.E2TPTR.from_pretrained(FOLDER)`.
Limits: these scores say nothing about the use of EEG. `spikeloom evaluate run=RUN` trains the controls and evaluates.
"""
