"""From the EEG of reading to text, and whether the text owes anything to the EEG: synthetic readings, so it is known.

A CET-MAE is pre-trained, an E2T-PTR decodes freely, the same decoder is trained again on noise, and the two are judged.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from accel.report import Section
from bci import figures
from bci.cet_mae import CETMAEConfig
from bci.evaluation.controls import ControlsConfig
from bci.recipes import AsRecordedConfig, CETMAERecipe, E2TPTRRecipe, ReadingConfig
from bci.report import Findings
from bci.tokenizer import load_tokenizer
from bci.training import PretrainingConfig
from bci.zuco.splits import SplitConfig
from bci.zuco.synthetic import SyntheticZuCoConfig
from pipelines import reading_pages as pages
from pipelines.chapters.chapter import Chapter
from pipelines.optimisation import OptimizerConfig
from pipelines.reading_protocol import judge
from pipelines.reading_runs import pretrain, read, train_decoder
from pipelines.runs import load_config, load_model
from pipelines.schema import DemoConfig, EvaluateConfig, TrainConfig, TrainerConfig

log = logging.getLogger("spikeloom")
STRENGTH = 3.0  # of the planted signal, in parts of the noise
PRETRAIN_EPOCHS, DECODER_EPOCHS = 30, 20
SEEDS = 1  # of the noise control: enough to show the way, too few for a result


def tell(config: DemoConfig, folder: Path) -> Chapter:
    before, after = recipes(config, folder)
    log.info("1/3  pre-training CET-MAE on synthetic readings")
    readings = read(before)
    encoder = pretrain(before, readings)
    log.info("2/3  training a decoder on it")
    decoder = train_decoder(after, readings)
    log.info("3/3  training the same decoder on noise, and judging the two")
    run = Path(after.run)
    found, page = judge(
        load_model(run / "model").model, load_config(run),
        EvaluateConfig(run=str(run), controls=ControlsConfig(names=["noise"], seeds=SEEDS, power_runs=4)),
        readings, load_tokenizer(run / "model"),
    )  # fmt: skip
    data = before.data
    return Chapter(
        title="From reading to text, with the answer known",
        lead=f"{found['verdict']} {data.n_subjects} synthetic readers read {data.n_sentences} sentences; the EEG of a "
        f"fixated word holds {STRENGTH:g} times its noise of what the word is. An encoder learnt to match EEG and text "
        f"({encoder['parameters']:,} parameters), a decoder to write what was read "
        f"({decoder['parameters']:,} parameters). It writes freely, never seeing the text, and is compared with the "
        f"same decoder trained on noise.{unheard(found, encoder)}",
        sections=sections(page, Path(before.run), encoder),
        facts={
            "others of one length that fit better (chance 50 %)": percent(encoder["retrieval"]["same_length_rank"]),
            "excess of EEG over noise": f"{found['excess']['difference']:+.3f}",
            "headline p": f"{found['p']:.3f}",
            "unseen sentences": str(found["n_test_sentences"]),
        },
    )


def recipes(config: DemoConfig, folder: Path) -> tuple[TrainConfig, TrainConfig]:
    """Of the pre-training and of the decoder."""
    before = TrainConfig(
        name="synthetic_zuco",
        run=str(folder / "encoder"),
        seed=config.seed,
        overwrite=True,
        data=SyntheticZuCoConfig(n_subjects=3, n_sentences=300, signal_strength=STRENGTH, seed=config.seed),
        features=ReadingConfig(split=SplitConfig(unit="key", seed=config.seed, test=0.15)),
        augmentation=AsRecordedConfig(),
        model=CETMAERecipe(sizes=CETMAEConfig.planted(), pretraining=PretrainingConfig.planted()),
        optimizer=OptimizerConfig(lr=2e-3, weight_decay=1e-2),
        trainer=TrainerConfig(epochs=PRETRAIN_EPOCHS, batch_size=64),
    )
    after = replace(
        before, run=str(folder / "decoder"), pretrained=before.run, model=E2TPTRRecipe(),
        trainer=replace(before.trainer, epochs=DECODER_EPOCHS),
    )  # fmt: skip
    return before, after


def sections(page: Findings, encoder: Path, learnt: dict[str, Any]) -> list[Section]:
    """What was learnt, what was written, and what tests it."""
    parts = [
        pages.learning_curve(encoder, learnt["best_epoch"], pages.PRETRAINING_CURVE),
        figures.sample_decodes(page.decodes),
        *page.judgement,
        figures.control_comparison(page.controls, page.control_score),
    ]
    if page.saliency is not None:
        parts.append(figures.electrode_importance(page.saliency, page.saliency_measure))
    if page.power is not None:
        parts.append(figures.power_curve(*page.power))
    return parts


def unheard(found: Mapping[str, Any], encoder: Mapping[str, Any]) -> str:
    """Where the encoder tells sentences apart and the decoder does not: that the content is there and is not used."""
    if encoder["retrieval"]["p"] >= 0.05 or found["p"] < 0.05:
        return ""
    return (
        " The encoder does tell sentences apart by the EEG, so what was read is there to be heard; the decoder, after "
        f"{DECODER_EPOCHS} short epochs, writes what is common instead of listening."
    )


def percent(share: float | None) -> str:
    return "too few to say" if share is None else f"{100 * share:.0f} %"
