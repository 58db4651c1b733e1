"""What people read about a run on readings: the page, the model card, and the figures both are made of."""

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from accel.report import Section, Table, new_figure, palette
from bci.cet_mae import CETMAE
from bci.datamodule import EncodedReadings
from bci.e2t_ptr import E2TPTR
from bci.evaluation.decodings import Decodings
from bci.evaluation.diversity import diversity
from bci.evaluation.metrics import measure
from bci.report import Findings, reading_report
from bci.zuco.leakage import check_split
from bci.zuco.splits import load_split
from bci.zuco.summary import Summary, summarise
from pipelines.pruning_story import pruning_sections
from pipelines.runs import flat
from pipelines.schema import TrainConfig

log = logging.getLogger("spikeloom")
SHOWN = 6  # sentences whose decodings a page shows


def history(run: Path) -> list[dict[str, float]]:
    """Rows of metrics.csv."""
    with (run / "metrics.csv").open(encoding="utf-8") as f:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(f)]


def at_epoch(run: Path, epoch: int) -> dict[str, float]:
    """The validation losses of an epoch, counted from 1."""
    return {name: value for name, value in history(run)[epoch - 1].items() if name.startswith("valid_")}


def free_running(decodings: Decodings) -> dict[str, Any]:
    """Metrics of free-running outputs; not yet a result, which takes controls."""
    metrics = measure(decodings.outputs, decodings.references)
    return {**metrics.as_dict(), **diversity(decodings).as_dict()}


def learning_curve(run: Path, best_epoch: int, caption: str) -> Section:
    """Every loss of metrics.csv, train and validation."""
    rows = history(run)
    names = [name.removeprefix("valid_") for name in rows[0] if name.startswith("valid_")]
    figure = new_figure(9.4, 2.9)
    for place, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), place + 1)
        for split, colour in (("train", palette[0]), ("valid", palette[1])):
            axes.plot([row["epoch"] for row in rows], [row[f"{split}_{name}"] for row in rows], color=colour,
                      label={"train": "train", "valid": "validation"}[split])  # fmt: skip
        axes.axvline(best_epoch, color=palette[6], linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlabel="epoch", title=name)
        if not place:
            axes.legend(fontsize=8, frameon=False)
    return Section("How it learnt", f"{caption} The dashed line marks epoch {best_epoch}, which is kept.", figure)


@torch.enable_grad()
def saliency(model: CETMAE | E2TPTR, readings: EncodedReadings, n_rows: int = 128) -> np.ndarray:
    """float `[840]`: mean absolute gradient of the loss of a decoder, or of the match of a CET-MAE with the own
    sentence, with respect to each feature, over the tokens of some readings."""
    batch = readings[torch.arange(min(n_rows, len(readings)))]
    eeg = batch.eeg.clone().requires_grad_()
    if isinstance(model, E2TPTR):
        loss = model.loss(eeg, batch.mask, batch.ids)
    else:
        loss = (model.eeg_vector(eeg, batch.mask) * model.text_vector(batch.ids)).sum(1).mean()
    (gradient,) = torch.autograd.grad(loss, eeg)
    importance: np.ndarray = gradient[batch.mask].abs().mean(0).double().numpy()
    return importance


def summary_of(config: TrainConfig) -> Summary:
    """One more pass over the recordings, for the page."""
    return summarise(config.data.build(), config.features.samples.build())


def tell_pretraining(
    run: Path, config: TrainConfig, result: dict[str, Any], model: CETMAE, valid: EncodedReadings
) -> None:
    """report.html of a pre-training."""
    reading_report(run / "report.html", Findings(
        title=f"{result['name']}: CET-MAE with {result['parameters']:,} parameters",
        verdict=matched(result["retrieval"]),
        judgement=[learning_curve(run, result["best_epoch"], PRETRAINING_CURVE), matching(result["retrieval"]),
                   *pruning_sections(run, result)],
        saliency=saliency(model, valid), saliency_measure="the match between a reading and its sentence",
        leakage=check_split(load_split(run / "split")), summary=summary_of(config), config=settings(config, result),
    ))  # fmt: skip


def tell_decoder(
    run: Path, config: TrainConfig, result: dict[str, Any], test: Decodings, model: E2TPTR, valid: EncodedReadings
) -> None:
    """report.html of a decoder that has no controls yet."""
    rows = [(test.references[row], test.outputs[row]) for row in examples(test.references)]
    decodes = Section(
        "What it wrote", "Free-running: the decoder sees the EEG and its own words, never the text.",
        table=Table(("read", "written"), rows),
    )  # fmt: skip
    reading_report(run / "report.html", Findings(
        title=f"{result['name']}: E2T-PTR with {result['parameters']:,} parameters",
        verdict="Nothing is known yet about its use of the EEG: no control was trained. "
        f"`spikeloom evaluate run={run}` trains them and judges. BLEU-1 of "
        f"{result['test']['bleu_word'][0]:.2f} on unseen sentences, free-running, says nothing by itself.",
        judgement=[
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


def matching(found: Mapping[str, Any]) -> Section:
    """Retrieval as a table beside chance."""
    n, gallery = found["drawn"], found["gallery"]
    rows = [
        (f"contrastive loss, {n} sentences (nats)", f"{found['loss']:.3f}", f"{np.log(n):.3f}"),
        (f"own sentence first of {n}", f"{100 * found['top1']:.1f} %", f"{100 / n:.1f} %"),
        (f"own sentence among the first five of {n}", f"{100 * found['top5']:.1f} %", f"{500 / n:.1f} %"),
        (f"first of all {gallery['gallery']:.0f}", f"{100 * gallery['top'][1]:.1f} %",
         f"{100 * gallery['chance_top'][1]:.1f} %"),
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
    readings = list(rows.values())
    k = min(k, len(readings))
    chosen = [readings[i * len(readings) // k] for i in range(k)]
    return [readers[i % len(readers)] for i, readers in enumerate(chosen)]


def pretraining_card(result: dict[str, Any]) -> str:
    found = result["retrieval"]
    rank = "too few sentences" if found["same_length_rank"] is None else f"{found['same_length_rank']:.3f} (chance 0.5)"
    return f"""---
library_name: spikeloom
tags: [eeg, masked-autoencoder]
---
# CET-MAE, {result["parameters"]:,} parameters

Restores masked EEG and text of a reading, and matches the two.

| | |
|---|---|
| data | {result["name"]}, {result["train_rows"]:,} train readings, {result["valid_rows"]:,} to choose the epoch |
| validation losses, epoch {result["best_epoch"]} | {
        ", ".join(f"{k.removeprefix('valid_')} {v:.3f}" for k, v in result["valid"].items())
    } |
| rank among sentences of one length | {rank}, p = {found["p"]:.3f} |
| seed | {result["seed"]}, one run |

Load with `bci.cet_mae.CETMAE.from_pretrained(FOLDER)`; `tokenizer.json` makes the ids, `preprocessor_config.json` says
how readings become samples and how they were split.
Limits: one seed; validation sentences chose the epoch; nothing here says that text can be decoded.
"""


def decoder_card(result: dict[str, Any]) -> str:
    bleu = " / ".join(f"{value:.2f}" for value in result["test"]["bleu_word"])
    return f"""---
library_name: spikeloom
tags: [eeg, brain-to-text]
---
# E2T-PTR, {result["parameters"]:,} parameters

Writes text for the EEG of a reading, freely: greedy or by beams.

| | |
|---|---|
| data | {result["name"]}, {result["train_rows"]:,} train readings, {result["valid_rows"]:,} to choose the epoch |
| encoder | inherited from {result["pretrained"]} |
| BLEU-1..4 over words, free-running, {result["test_rows"]:,} readings of unseen sentences | {bleu} |
| seed | {result["seed"]}, one run |

Load with `bci.e2t_ptr.E2TPTR.from_pretrained(FOLDER)`.
Limits: these scores say nothing about the use of EEG. `spikeloom evaluate run=RUN` trains the controls and judges.
"""
