"""`spikeloom evaluate` of a run on readings: a decoder judged beside controls that are trained for the purpose.

Every control is trained like the decoder, on inputs without the content of the EEG, and decoded freely on the same
split; what it wrote stays in RUN/controls, so an evaluation that was interrupted goes on where it was. The first line
of the page says whether the decoder beats its noise control.
"""

import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from accel.files import read_json, whole, write_json
from bci.control_inputs import ControlInputs
from bci.datamodule import EncodedReadings
from bci.e2t_ptr import E2TPTR
from bci.evaluation.calibration import power_curve
from bci.evaluation.controls import SEEDS, Training, most_frequent, trainings, unigram
from bci.evaluation.decodings import Decodings
from bci.evaluation.diversity import diversity
from bci.evaluation.excess import own_excess
from bci.evaluation.metrics import bleu, measure
from bci.evaluation.protocol import CONSTANT_SENTENCE
from bci.evaluation.sections import sections
from bci.evaluation.significance import WordWeights, difference_permutation, sentence_permutation
from bci.matching import match
from bci.readings import ReadingSet, SplitReadings
from bci.report import Findings, reading_report
from bci.tokenizer import TextTokenizer, load_tokenizer
from bci.zuco.leakage import check_split
from pipelines import reading_pages as pages
from pipelines.process import set_up
from pipelines.reading_runs import decode, encode, learn_decoder, learn_encoder, read
from pipelines.runs import TrainedModel, load_config, load_model
from pipelines.schema import EvaluateConfig, TrainConfig

log = logging.getLogger("spikeloom")
HEADLINE = ("noise", "neutral")  # the control that the decoder must beat


def evaluate(trained: TrainedModel, trained_with: TrainConfig, config: EvaluateConfig) -> dict[str, Any]:
    """Judge a run on one split; writes JSON and a page beside it."""
    if config.split not in ("train", "valid", "test"):
        raise ValueError(f"split={config.split} is not defined for readings; use one of train, valid, test")
    if config.data.root is not None:
        if not hasattr(trained_with.data, "root"):
            source = trained_with.data.source
            raise ValueError(f"this run was trained on {source} data, which has no folder; leave data.root out")
        trained_with = replace(trained_with, data=replace(trained_with.data, root=config.data.root))
    set_up(trained_with.trainer.threads)
    readings = read(trained_with, tuple(dict.fromkeys(("train", "valid", config.split))))
    run = Path(config.run)
    out = Path(config.out) if config.out else run / "evaluation.json"
    tokenizer = load_tokenizer(run / "model")
    if isinstance(trained.model, E2TPTR):
        found, page = judge(trained.model, trained_with, config, readings, tokenizer)
    else:
        found, page = match_page(trained, trained_with, config, encode(trained_with, tokenizer, readings[config.split]))
    overlaps = check_split(readings.split)
    found = {
        "verdict": page.verdict, "run": config.run, "split": config.split, "root": config.data.root, **found,
        "leakage": [asdict(pair) for pair in overlaps],
        "split_unit": readings.split.config.unit, "rows_by_split": dict(readings.split.counts),
    }  # fmt: skip
    write_json(out, found)
    page = replace(page, leakage=overlaps, summary=pages.summary_of(trained_with))
    reading_report(out.with_suffix(".html"), page)
    print(page.verdict)
    log.info("-> %s, %s", out, out.with_suffix(".html").name)
    return found


def match_page(
    trained: TrainedModel, trained_with: TrainConfig, config: EvaluateConfig, readings: EncodedReadings
) -> tuple[dict[str, Any], Findings]:
    """How well a CET-MAE matches EEG and text of a split."""
    retrieval = match(trained.model, readings, trained_with.seed, config.protocol.n_permutations)
    return {"rows": len(readings), "retrieval": retrieval}, Findings(
        title=f"{trained_with.name}: CET-MAE on {config.split} sentences", verdict=pages.matched(retrieval),
        judgement=[pages.matching(retrieval)], saliency=pages.saliency(trained.model, readings),
        saliency_measure="the match between a reading and its sentence", config=pages.settings(trained_with, {}),
    )  # fmt: skip


def judge(
    model: E2TPTR, trained_with: TrainConfig, config: EvaluateConfig, readings: SplitReadings, tokenizer: TextTokenizer
) -> tuple[dict[str, Any], Findings]:
    """The whole protocol for a decoder."""
    asked, run, split = config.protocol, Path(config.run), config.split
    decoding = trained_with.model.decoding
    rows, train_texts = readings[split], readings["train"].texts
    encoded = encode(trained_with, tokenizer, rows)
    eeg = decode(model, encoded, tokenizer, decoding, trained_with.seed)
    write_pairs(run / f"predictions-{split}.txt", eeg)
    wrote = train_controls(trained_with, config, readings, tokenizer)
    noise = wrote[HEADLINE]
    weights = WordWeights(train_texts)
    judgement = asked.build().judge(
        eeg, noise, train_texts, dropped=readings.dropped,
        decoding={**asdict(decoding), "noise_seeds": config.controls.seeds, "noise_mask": HEADLINE[1]},
    )  # fmt: skip
    judged = {f"{name} ({mask} lengths)": other for (name, mask), other in wrote.items()}
    beside = {
        name: {
            **measure(other.outputs, other.references).as_dict(), **diversity(other, train_texts).as_dict(),
            "bleu1_by_seed": by_seed(other), "excess": list(own_excess(other, weights, n_draws=asked.n_draws)),
            "p_permutation": sentence_permutation(other, weights, asked.n_permutations, asked.seed).p,
            "p_difference": difference_permutation(eeg, other, weights, asked.n_permutations, asked.seed).p,
        }
        for name, other in judged.items()
    }  # fmt: skip
    matched = retrieval_of(trained_with, encoded, asked.n_permutations)
    power = power_curve(config.controls.power_runs) if config.controls.power_runs else None
    forced = teacher_forced(model, encoded, tokenizer)
    lines = baselines(rows, train_texts, trained_with.seed)
    found = {
        **judgement.as_dict(), "rows": len(rows), "n_test_sentences": judgement.p_eeg.n_sentences,
        "controls": beside, "control_seeds": config.controls.seeds, "controls_pretrained": config.controls.pretrain,
        "baselines": lines, "retrieval": matched, "calibration": power,
        "diagnostic_teacher_forced": {**forced, "warning": "reads the answer; no result"},
        "predictions": str(run / f"predictions-{split}.txt"),
    }  # fmt: skip
    excesses = {"EEG": own_excess(eeg, weights, n_draws=asked.n_draws), **{k: v["excess"] for k, v in beside.items()}}
    page = Findings(
        title=f"{trained_with.name}: does the decoder read the EEG?", verdict=judgement.verdict,
        judgement=[*sections(judgement), controls_table(eeg, beside, lines),
                   *([pages.matching(matched)] if matched else [])],
        decodes=[(eeg.references[row], {"EEG": eeg.outputs[row], "noise": nth(noise, eeg, row)})
                 for row in pages.examples(eeg.references)],
        controls={name: (v[0], v[1], v[2]) for name, v in excesses.items()},
        saliency=pages.saliency(model, encoded), saliency_measure="the loss of the decoder",
        power=(power["strengths"], power["rejected"], power["runs"]) if power else None,
        config=pages.settings(trained_with, {"control seeds": config.controls.seeds}),
    )  # fmt: skip
    return found, page


# --- controls ---------------------------------------------------------------------------------------------------------


def train_controls(
    trained_with: TrainConfig, config: EvaluateConfig, readings: SplitReadings, tokenizer: TextTokenizer
) -> dict[tuple[str, str], Decodings]:
    """(control, mask) -> what its trainings wrote, the seeds one after the other."""
    chosen = trainings(config.controls.chosen(), config.controls.seeds)
    if config.controls.seeds < SEEDS:
        log.warning(
            "%d seeds are too few for the spread of a control; use %d for a result", config.controls.seeds, SEEDS
        )
    inputs = ControlInputs(readings.sets)
    other = f"-{readings.split.rows_digest[:8]}" if config.data.root is not None else ""  # of another folder
    parts: dict[tuple[str, str], list[Decodings]] = {}
    for number, training in enumerate(chosen, 1):
        own = "-encoder" if config.controls.pretrain and training.encoder else ""
        name = f"{training.control}-{training.mask}-seed{training.seed}{own}"
        folder = Path(config.run) / f"controls{other}" / name
        file = folder / f"{config.split}.json"
        if not file.is_file():
            log.info("control %d of %d: %s", number, len(chosen), folder.name)
            sets = {name: encode(trained_with, tokenizer, given) for name, given in inputs.readings(training).items()}
            train_control(trained_with, folder, file, training, sets, tokenizer, config.controls.pretrain)
        values = read_json(file, "delete it, and it is trained again")
        parts.setdefault((training.control, training.mask), []).append(
            Decodings(**{name: tuple(column) for name, column in values.items()})
        )
    return {key: joined(several) for key, several in parts.items()}


def train_control(
    trained_with: TrainConfig, folder: Path, file: Path, training: Training, sets: dict[str, EncodedReadings],
    tokenizer: TextTokenizer, pretrain: bool,
) -> None:  # fmt: skip
    """Train one control and write what it decodes for the split of `file`; of its weights nothing is kept."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    encoder = learn_encoder(trained_with, folder / "encoder", sets, training.seed) if (
        pretrain and training.encoder
    ) else None  # fmt: skip
    seed = 1000 + training.seed  # other ones than those of the decoder
    model, _ = learn_decoder(
        trained_with, folder, sets, seed=seed, encoder=encoder, inherit=training.encoder, say=False
    )
    written = decode(model, sets[file.stem], tokenizer, trained_with.model.decoding, seed)
    write_json(file, asdict(written))
    for trained in (folder / "checkpoints", folder / "encoder"):
        shutil.rmtree(trained, ignore_errors=True)


def joined(several: list[Decodings]) -> Decodings:
    columns = [asdict(one) for one in several]
    return Decodings(**{name: tuple(value for column in columns for value in column[name]) for name in columns[0]})


def by_seed(decodings: Decodings) -> dict[str, float]:
    """BLEU-1 of each seed, in percent."""
    scores = {}
    for seed in sorted(set(decodings.seeds)):
        part = decodings.select(row for row, of in enumerate(decodings.seeds) if of == seed)
        scores[str(seed)] = bleu(part.outputs, part.references)[0]
    return scores


def nth(noise: Decodings, eeg: Decodings, row: int) -> str:
    """What the noise decoder of the first seed wrote for the reading of a row of `eeg`; empty where it has none."""
    wanted = eeg.references[row], eeg.subjects[row], eeg.tasks[row]
    found = zip(noise.outputs, noise.references, noise.subjects, noise.tasks, strict=True)
    return next((output for output, *reading in found if tuple(reading) == wanted), "")


# --- beside the controls ----------------------------------------------------------------------------------------------


def baselines(rows: ReadingSet, train_texts: tuple[str, ...], seed: int) -> dict[str, dict[str, Any]]:
    """Sentences without any input."""
    said = {
        "constant_sentence": [CONSTANT_SENTENCE] * len(rows),
        "most_frequent": [most_frequent(train_texts)] * len(rows),
        "unigram": unigram(train_texts, len(rows), seed),
    }
    return {name: measure(outputs, rows.texts).as_dict() for name, outputs in said.items()}


@torch.no_grad()
def teacher_forced(model: E2TPTR, readings: EncodedReadings, tokenizer: TextTokenizer) -> dict[str, Any]:
    """Metrics of what the decoder says when it is handed the true words: a diagnostic."""
    said: list[str] = []
    for batch in readings.batches():
        said += tokenizer.decode(model.diagnostic_teacher_forced(batch.eeg, batch.mask, batch.ids))
    return measure(said, readings.readings.texts).as_dict()


def retrieval_of(trained_with: TrainConfig, readings: EncodedReadings, n_permutations: int) -> dict[str, Any] | None:
    """Matching by the CET-MAE that the decoder inherits from; None where its run is gone."""
    folder = Path(trained_with.pretrained or "")
    if not (folder / "model" / "model.safetensors").is_file():
        log.warning("no retrieval: %s is gone", folder)
        return None
    return match(load_model(folder / "model").model, readings, load_config(folder).seed, n_permutations)


def controls_table(eeg: Decodings, beside: dict[str, dict[str, Any]], lines: dict[str, dict[str, Any]]) -> Any:
    """Every decoder and baseline, raw scores and tests."""
    from accel.report import Section, Table

    def spread(values: dict[str, float]) -> str:
        scores = list(values.values())
        return f"{np.mean(scores):.2f}" + (f" ± {np.std(scores, ddof=1):.2f}" if len(scores) > 1 else "")

    rows = [("EEG", f"{bleu(eeg.outputs, eeg.references)[0]:.2f}", "", "")]
    rows += [
        (name.replace("_", " "), spread(found["bleu1_by_seed"]), f"{found['p_permutation']:.3f}",
         f"{found['p_difference']:.3f}")
        for name, found in beside.items()
    ]  # fmt: skip
    rows += [(name.replace("_", " "), f"{found['bleu_word'][0]:.2f}", "", "") for name, found in lines.items()]
    return Section(
        "Every control and baseline",
        "BLEU-1 in percent, mean and deviation over the seeds. p, own: whether the control names its own sentence "
        "better than permuted ones; p, EEG minus control: whether the decoder does so beyond the control.",
        table=Table(("decoder", "BLEU-1", "p, own", "p, EEG minus control"), rows),
    )


def write_pairs(path: Path, decodings: Decodings) -> None:
    """The outputs as lines `Predicted: …` and `True: …`, which `spikeloom score` reads."""
    pairs = zip(decodings.outputs, decodings.references, strict=True)
    text = "\n".join(f"Predicted: {' '.join(said.split())}\nTrue: {true}\n" for said, true in pairs)
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
