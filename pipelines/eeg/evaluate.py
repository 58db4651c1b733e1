"""`spikeloom evaluate` of a run on trials: a decoder evaluated beside controls that are trained for the purpose.

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

from spikeloom.accel.common.files import contents, read_object, whole, write_json
from spikeloom.bci.data.datamodule import EncodedTrials
from spikeloom.bci.data.tokenizer import TextTokenizer, load_tokenizer
from spikeloom.bci.data.trials import TrialSet, TrialSplits
from spikeloom.bci.evaluation.baselines import run_baseline
from spikeloom.bci.evaluation.calibration import power_curve
from spikeloom.bci.evaluation.control_inputs import ControlInputs
from spikeloom.bci.evaluation.controls import SEEDS, WITHOUT_EEG, Training, most_frequent, trainings, unigram
from spikeloom.bci.evaluation.decodings import Decodings
from spikeloom.bci.evaluation.diversity import diversity
from spikeloom.bci.evaluation.excess import own_excess
from spikeloom.bci.evaluation.matching import match
from spikeloom.bci.evaluation.metrics import bleu, measure
from spikeloom.bci.evaluation.protocol import CONSTANT_SENTENCE
from spikeloom.bci.evaluation.sections import sections
from spikeloom.bci.evaluation.significance import WordWeights, difference_permutation, sentence_permutation
from spikeloom.bci.evaluation.signs import RANDOM_SPLIT
from spikeloom.bci.models.e2t_ptr import E2TPTR
from spikeloom.bci.reports.page import Findings, eeg_report
from spikeloom.bci.zuco.leakage import check_split
from spikeloom.pipelines.config.evaluate import EvaluateConfig
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.eeg import report as pages
from spikeloom.pipelines.eeg.train import decode, encode, learn_decoder, learn_encoder, read
from spikeloom.pipelines.training.run_dir import TrainedModel, load_config, load_model
from spikeloom.pipelines.training.runtime import use_threads

log = logging.getLogger("spikeloom")
HEADLINE = ("noise", "neutral")  # the control that the decoder must beat


def evaluate(trained: TrainedModel, trained_with: TrainConfig, config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a run on one split; writes JSON and a page beside it."""
    if config.split not in ("train", "valid", "test"):
        raise ValueError(f"split={config.split} is not defined for trials; use one of train, valid, test")
    if config.data.root is not None:
        if not hasattr(trained_with.data, "root"):
            source = trained_with.data.source
            raise ValueError(f"this run was trained on {source} data, which has no folder; leave data.root out")
        trained_with = replace(trained_with, data=replace(trained_with.data, root=config.data.root))
    use_threads(trained_with.trainer.threads)
    trials = read(trained_with, tuple(dict.fromkeys(("train", "valid", config.split))))
    run = Path(config.run)
    out = Path(config.out) if config.out else run / "evaluation.json"
    tokenizer = load_tokenizer(run / "model")
    if isinstance(trained.model, E2TPTR):
        found, page = judge(trained.model, trained_with, config, trials, tokenizer)
    else:
        found, page = match_page(trained, trained_with, config, encode(trained_with, tokenizer, trials[config.split]))
    overlaps = check_split(trials.split)
    found = {
        "verdict": page.verdict, "run": config.run, "split": config.split, "root": config.data.root, **found,
        "leakage": [asdict(pair) for pair in overlaps],
        "split_remark": None if trials.split.config.unit == "run" else RANDOM_SPLIT,
        "split_unit": trials.split.config.unit, "rows_by_split": dict(trials.split.counts),
    }  # fmt: skip
    write_json(out, found)
    page = replace(page, leakage=overlaps, summary=pages.summary_of(trained_with))
    eeg_report(out.with_suffix(".html"), page)
    for remark in found.get("remarks", ()):
        print(f"note: {remark}")
    if trials.split.config.unit != "run":
        print(f"note: {RANDOM_SPLIT}")
    log.info("-> %s, %s", out, out.with_suffix(".html").name)
    return found


def match_page(
    trained: TrainedModel, trained_with: TrainConfig, config: EvaluateConfig, trials: EncodedTrials
) -> tuple[dict[str, Any], Findings]:
    """How well a CET-MAE matches EEG and text of a split."""
    retrieval = match(trained.model, trials, trained_with.seed, config.protocol.n_permutations)
    return {"rows": len(trials), "retrieval": retrieval}, Findings(
        title=f"{trained_with.name}: CET-MAE on {config.split} sentences", verdict=pages.matched(retrieval),
        assessment=[pages.matching(retrieval)], saliency=pages.saliency(trained.model, trials),
        saliency_measure="the match between a trial and its sentence", config=pages.settings(trained_with, {}),
    )  # fmt: skip


def judge(
    model: E2TPTR, trained_with: TrainConfig, config: EvaluateConfig, trials: TrialSplits, tokenizer: TextTokenizer
) -> tuple[dict[str, Any], Findings]:
    """The whole protocol for a decoder."""
    asked, run, split = config.protocol, Path(config.run), config.split
    if trained_with.pretrained is None:
        raise ValueError(
            f"{run} names no CET-MAE it inherits from, where its controls would start; convert that one, too, and "
            "convert this one again with pretrained=RUN of it"
        )
    decoding = trained_with.model.decoding
    rows, train_texts = trials[split], trials["train"].texts
    encoded = encode(trained_with, tokenizer, rows)
    eeg = decode(model, encoded, tokenizer, decoding, trained_with.seed)
    write_pairs(run / f"predictions-{split}.txt", eeg)
    wrote = train_controls(trained_with, config, trials, tokenizer)
    noise = wrote[HEADLINE]
    weights = WordWeights(train_texts)
    without = {
        f"{name} ({mask} lengths)": other
        for (name, mask), other in wrote.items()
        if name in WITHOUT_EEG and (name, mask) != HEADLINE
    }
    missing = [name for name in WITHOUT_EEG if name not in {control for control, _ in wrote}]
    assessment = asked.build().assess(
        eeg, noise, train_texts, dropped=trials.dropped,
        decoding={**asdict(decoding), "noise_seeds": config.controls.seeds, "noise_mask": HEADLINE[1]},
        controls=without, untested=missing,
    )  # fmt: skip
    evaluated = {f"{name} ({mask} lengths)": other for (name, mask), other in wrote.items()}
    beside = {
        name: {
            **measure(other.outputs, other.references).as_dict(), **diversity(other, train_texts).as_dict(),
            "bleu1_by_seed": by_seed(other), "excess": list(own_excess(other, weights, n_draws=asked.n_draws)),
            "p_permutation": sentence_permutation(other, weights, asked.n_permutations, asked.seed).p,
            "p_difference": difference_permutation(eeg, other, weights, asked.n_permutations, asked.seed).p,
        }
        for name, other in evaluated.items()
    }  # fmt: skip
    matched = retrieval_of(trained_with, encoded, asked.n_permutations)
    power = power_curve(config.controls.power_runs) if config.controls.power_runs else None
    forced = teacher_forced(model, encoded, tokenizer)
    lines = baselines(rows, train_texts, trained_with.seed)
    simple = trained_baselines(trained_with, config, trials, tokenizer, weights)
    found = {
        **assessment.as_dict(), "rows": len(rows), "n_test_sentences": assessment.p_eeg.n_sentences,
        "controls": beside, "control_seeds": config.controls.seeds, "controls_pretrained": config.controls.pretrain,
        "baselines": lines, "trained_baselines": simple, "retrieval": matched, "calibration": power,
        "diagnostic_teacher_forced": {**forced, "warning": "reads the answer; no result"},
        "predictions": str(run / f"predictions-{split}.txt"),
    }  # fmt: skip
    excesses = {"EEG": own_excess(eeg, weights, n_draws=asked.n_draws), **{k: v["excess"] for k, v in beside.items()}}
    page = Findings(
        title=f"{trained_with.name}: does the decoder read the EEG?", verdict=assessment.verdict,
        assessment=[*sections(assessment), controls_table(eeg, beside, simple, lines),
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
    trained_with: TrainConfig, config: EvaluateConfig, trials: TrialSplits, tokenizer: TextTokenizer
) -> dict[tuple[str, str], Decodings]:
    """(control, mask) -> what its trainings wrote, the seeds one after the other."""
    chosen = trainings(config.controls.chosen(), config.controls.seeds)
    if config.controls.seeds < SEEDS:
        said = "controls.seeds=%d is too few for the spread of a control; use %d for a result"
        log.warning(said, config.controls.seeds, SEEDS)
    inputs = ControlInputs(trials.sets)
    other = f"-{trials.split.rows_digest[:8]}" if config.data.root is not None else ""  # of another folder
    parts: dict[tuple[str, str], list[Decodings]] = {}
    for number, training in enumerate(chosen, 1):
        own = "-encoder" if config.controls.pretrain and training.encoder else ""
        name = f"{training.control}-{training.mask}-seed{training.seed}{own}"
        folder = Path(config.run) / f"controls{other}" / name
        file = folder / f"{config.split}.json"
        if not file.is_file():
            log.info("control %d of %d: %s", number, len(chosen), folder.name)
            sets = {name: encode(trained_with, tokenizer, given) for name, given in inputs.trials(training).items()}
            train_control(trained_with, folder, file, training, sets, tokenizer, config.controls.pretrain)
        parts.setdefault((training.control, training.mask), []).append(read_decodings(file))
    return {key: joined(several) for key, several in parts.items()}


def read_decodings(file: Path) -> Decodings:
    """What a control decoded. Raises ValueError naming the file where it is damaged."""
    again = "delete it, and it is trained again"
    values = read_object(file, again)
    with contents(file, again):
        found = Decodings(**{name: tuple(column) for name, column in values.items()})
        texts = (*found.outputs, *found.references, *found.subjects, *found.tasks)
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int) for n in found.seeds):
            raise ValueError("it is no table of texts, subjects, tasks and seeds")
        return found


def train_control(
    trained_with: TrainConfig, folder: Path, file: Path, training: Training, sets: dict[str, EncodedTrials],
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
    """What the noise decoder of the first seed wrote for the trial of a row of `eeg`; empty where it has none."""
    wanted = eeg.references[row], eeg.subjects[row], eeg.tasks[row]
    found = zip(noise.outputs, noise.references, noise.subjects, noise.tasks, strict=True)
    return next((output for output, *trial in found if tuple(trial) == wanted), "")


# --- beside the controls ----------------------------------------------------------------------------------------------


def baselines(rows: TrialSet, train_texts: tuple[str, ...], seed: int) -> dict[str, dict[str, Any]]:
    """Sentences without any input."""
    said = {
        "constant_sentence": [CONSTANT_SENTENCE] * len(rows),
        "most_frequent": [most_frequent(train_texts)] * len(rows),
        "unigram": unigram(train_texts, len(rows), seed),
    }
    return {name: measure(outputs, rows.texts).as_dict() for name, outputs in said.items()}


@torch.no_grad()
def teacher_forced(model: E2TPTR, trials: EncodedTrials, tokenizer: TextTokenizer) -> dict[str, Any]:
    """Metrics of what the decoder says when it is handed the true words: a diagnostic."""
    said: list[str] = []
    for batch in trials.batches():
        said += tokenizer.decode(model.diagnostic_teacher_forced(batch.eeg, batch.mask, batch.ids))
    return measure(said, trials.trials.texts).as_dict()


def retrieval_of(trained_with: TrainConfig, trials: EncodedTrials, n_permutations: int) -> dict[str, Any] | None:
    """Matching by the CET-MAE that the decoder inherits from; None where its run is gone."""
    folder = Path(trained_with.pretrained or "")
    if not (folder / "model" / "model.safetensors").is_file():
        log.warning("no retrieval: %s is gone", folder)
        return None
    return match(load_model(folder / "model").model, trials, load_config(folder).seed, n_permutations)


def trained_baselines(
    trained_with: TrainConfig, config: EvaluateConfig, trials: TrialSplits, tokenizer: TextTokenizer,
    weights: WordWeights,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Simpler decoders on the same trials, by the same test."""
    config.baselines.check()
    rows = trials[config.split]
    found: dict[str, dict[str, Any]] = {}
    if not config.baselines.names:
        return found
    sizes = load_config(Path(trained_with.pretrained or "")).model.sizes
    for name in config.baselines.names:
        log.info("baseline: %s", name.replace("_", " "))
        made = run_baseline(
            name, trials["train"], trials["valid"], rows, tokenizer=tokenizer, sizes=sizes, config=config.baselines,
            seed=trained_with.seed, max_length=trained_with.features.text.max_length,
        )  # fmt: skip
        written = Decodings(
            outputs=made.outputs, references=rows.texts, subjects=rows.subjects, tasks=rows.tasks,
            seeds=(trained_with.seed,) * len(rows),
        )  # fmt: skip
        test = sentence_permutation(written, weights, config.protocol.n_permutations, config.protocol.seed)
        found[name] = {
            **measure(written.outputs, written.references).as_dict(), "p_permutation": test.p,
            "seconds": round(made.seconds, 1), "parameters": made.parameters,
        }  # fmt: skip
    return found


def controls_table(
    eeg: Decodings, beside: dict[str, dict[str, Any]], simple: dict[str, dict[str, Any]],
    lines: dict[str, dict[str, Any]],
) -> Any:  # fmt: skip
    """Every decoder and baseline, raw scores and tests."""
    from spikeloom.accel.common.report import Section, Table

    def spread(values: dict[str, float]) -> str:
        scores = list(values.values())
        return f"{np.mean(scores):.2f}" + (f" ± {np.std(scores, ddof=1):.2f}" if len(scores) > 1 else "")

    rows = [("EEG", f"{bleu(eeg.outputs, eeg.references)[0]:.2f}", "", "")]
    rows += [
        (name.replace("_", " "), spread(found["bleu1_by_seed"]), f"{found['p_permutation']:.3f}",
         f"{found['p_difference']:.3f}")
        for name, found in beside.items()
    ]  # fmt: skip
    rows += [
        (f"{name.replace('_', ' ')} (trained on the EEG, {found['seconds']:.0f} s)", f"{found['bleu_word'][0]:.2f}",
         f"{found['p_permutation']:.3f}", "")
        for name, found in simple.items()
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
