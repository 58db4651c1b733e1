"""`spikeloom bench decoders`: which decoders of EEG find a planted signal, and at what cost.

All learn from the same synthetic trials and write the same unseen sentences freely; E2T-PTR starts from a CET-MAE
pre-trained on them, matched with its own text encoder or with vectors of a sentence encoder.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikeloom.accel.common.files import write_json
from spikeloom.bci.data.datamodule import EncodedTrials
from spikeloom.bci.data.tokenizer import TextTokenizer, train_tokenizer
from spikeloom.bci.data.trials import TrialSet, TrialSplits, read_splits
from spikeloom.bci.evaluation.baselines import BASELINES, Baseline, BaselinesConfig, fit, run_baseline
from spikeloom.bci.evaluation.metrics import bleu
from spikeloom.bci.evaluation.rows import Decodings
from spikeloom.bci.evaluation.significance import WordWeights, sentence_permutation
from spikeloom.bci.models.cet_mae import CETMAEConfig
from spikeloom.bci.models.e2t_ptr import build_e2t_ptr
from spikeloom.bci.models.pretraining import PretrainingBatch, PretrainingConfig
from spikeloom.bci.synthetic.zuco import SyntheticZuCoConfig
from spikeloom.bci.zuco.samples import SamplesConfig
from spikeloom.bci.zuco.splits import SplitConfig
from spikeloom.pipelines.config.bench import DecodersBenchConfig

E2T_PTR = "e2t_ptr"
MAX_LENGTH = 58  # most ids of a text
LEAST_STEPS = 20


def print_decoders(config: DecodersBenchConfig, out: str | None) -> None:
    """A line for each decoder, strength and seed."""
    names = config.names or [*BASELINES, E2T_PTR]
    known = [*BASELINES, E2T_PTR, *(f"{E2T_PTR}_{encoder}" for encoder in ("wordllama", "minilm"))]
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"decoders.names={unknown} are unknown; use some of {', '.join(known)}")
    if config.steps < LEAST_STEPS or not (config.strengths and config.seeds):
        raise ValueError(
            f"decoders.steps={config.steps}, strengths={config.strengths}, seeds={config.seeds} measure nothing; use "
            f"at least {LEAST_STEPS} steps, one strength and one seed"
        )
    found: list[dict[str, Any]] = []
    print("strength seed decoder            BLEU-1  p own   seconds  parameters")
    for strength in config.strengths:
        for seed in config.seeds:
            trials = synthetic(config, strength, seed)
            for name in names:
                row = {"strength": strength, "seed": seed, "decoder": name, **measured(name, trials, config, seed)}
                found.append(row)
                figures = f"{row['bleu_1']:6.2f}  {row['p']:.3f}  {row['seconds']:7.1f}  {row['parameters']:,}"
                print(f"{strength:<8g} {seed:<4d} {name:18s} {figures}", flush=True)
                if out is not None:
                    write_json(Path(out), found)


def synthetic(config: DecodersBenchConfig, strength: float, seed: int) -> TrialSplits:
    """Trials of one strength, split by sentence."""
    source = SyntheticZuCoConfig(
        n_subjects=config.subjects, n_sentences=config.sentences, signal_strength=strength, seed=seed
    ).build()
    return read_splits(source, SamplesConfig().build(), SplitConfig(unit="key", valid=0.1, test=0.15, seed=seed))


def measured(name: str, trials: TrialSplits, config: DecodersBenchConfig, seed: int) -> dict[str, Any]:
    """Score, test and cost of one decoder on the test trials."""
    train, valid, test = (trials[split] for split in ("train", "valid", "test"))
    tokenizer, sizes = train_tokenizer(list(dict.fromkeys(train.texts)), 600), CETMAEConfig.planted()
    steps = BaselinesConfig(steps=config.steps, lr=config.lr, batch_size=config.batch_size)
    if name in BASELINES:
        made = run_baseline(
            name, train, valid, test, tokenizer=tokenizer, sizes=sizes, config=steps, seed=seed, max_length=MAX_LENGTH
        )
    else:
        target = name.removeprefix(E2T_PTR).removeprefix("_") or None
        made = e2t_ptr(train, valid, test, tokenizer, replace(sizes, text_target=target), steps, seed)
    written = Decodings(
        outputs=made.outputs, references=test.texts, subjects=test.subjects, tasks=test.tasks, seeds=(seed,) * len(test)
    )
    return {
        "bleu_1": bleu(written.outputs, written.references)[0],
        "p": sentence_permutation(written, WordWeights(train.texts), config.permutations).p,
        "seconds": made.seconds, "parameters": made.parameters,
    }  # fmt: skip


def e2t_ptr(
    train: TrialSet, valid: TrialSet, test: TrialSet, tokenizer: TextTokenizer, sizes: CETMAEConfig,
    config: BaselinesConfig, seed: int,
) -> Baseline:  # fmt: skip
    """CET-MAE, then the decoder that inherits from it: `config.steps` steps each; seconds of both together."""
    started = time.process_time()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    sets = {
        k: EncodedTrials(t, tokenizer, MAX_LENGTH, sizes.text_target) for k, t in (("train", train), ("valid", valid))
    }
    encoder, objective = sizes.build(tokenizer.vocab_size), PretrainingConfig.planted().build()
    if (vectors := sets["train"].target) is not None:
        encoder.start_target(vectors)

    def pretraining(batch: PretrainingBatch, _: object) -> Tensor:
        return objective(encoder, batch, generator).total

    fit(encoder, sets["train"], sets["valid"], pretraining, config, seed)
    decoder = build_e2t_ptr(sizes, tokenizer.vocab_size)
    decoder.inherit(encoder.state_dict())
    fit(decoder, sets["train"], sets["valid"], lambda b, _: decoder.loss(b.eeg, b.mask, b.ids), config, seed)
    decoder.eval()
    outputs: list[str] = []
    for batch in EncodedTrials(test, tokenizer, MAX_LENGTH).batches():
        outputs += tokenizer.decode(decoder.generate(batch.eeg, batch.mask))
    parameters = sum(p.numel() for p in decoder.parameters())
    return Baseline(outputs=tuple(outputs), seconds=time.process_time() - started, parameters=parameters)
