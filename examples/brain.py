"""EEG-to-text on synthetic trials with a known signal, and a test whether the decoded text depends on the EEG.

A CET-MAE is pre-trained, an E2T-PTR decodes in free-running mode, the same decoder is trained on noise; both are
tested.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikeloom.accel.common.report import Section
from spikeloom.bci.data.tokenizer import load_tokenizer
from spikeloom.bci.evaluation.controls import ControlsConfig
from spikeloom.bci.models.cet_mae import CETMAEConfig
from spikeloom.bci.models.config import AsRecordedConfig, CETMAERecipe, E2TPTRRecipe, TrialConfig
from spikeloom.bci.models.pretraining import PretrainingConfig
from spikeloom.bci.reports import charts as figures
from spikeloom.bci.reports.page import Findings
from spikeloom.bci.synthetic.zuco import SyntheticZuCoConfig
from spikeloom.bci.zuco.splits import SplitConfig
from spikeloom.examples.chapter import Chapter
from spikeloom.pipelines.config.demo import DemoConfig
from spikeloom.pipelines.config.evaluate import EvaluateConfig
from spikeloom.pipelines.config.train import TrainConfig, TrainerConfig
from spikeloom.pipelines.eeg import report as pages
from spikeloom.pipelines.eeg.evaluate import judge
from spikeloom.pipelines.eeg.train import pretrain, read, train_decoder
from spikeloom.pipelines.training.optim import OptimizerConfig
from spikeloom.pipelines.training.run_dir import load_config, load_model

log = logging.getLogger("spikeloom.demo")
STRENGTH = 3.0  # of the synthetic signal, relative to the noise
PRETRAIN_EPOCHS, DECODER_EPOCHS = 20, 8
SEEDS = 1  # of the noise control: too few for a result


def tell(config: DemoConfig, folder: Path) -> Chapter:
    before, after = recipes(config, folder)
    log.info("  1/3  pre-training CET-MAE on synthetic trials")
    trials = read(before)
    encoder = pretrain(before, trials, page=False)
    log.info("  2/3  training a decoder on it")
    decoder = train_decoder(after, trials, page=False)
    log.info("  3/3  training the same decoder on noise, and testing both")
    run = Path(after.run)
    found, page = judge(
        load_model(run / "model").model, load_config(run),
        EvaluateConfig(run=str(run), controls=ControlsConfig(names=["noise"], seeds=SEEDS, power_runs=4)),
        trials, load_tokenizer(run / "model"),
    )  # fmt: skip
    data = before.data
    return Chapter(
        title="EEG-to-text on synthetic trials",
        lead=f"{found['verdict']} Data: {data.n_subjects} synthetic readers, {data.n_sentences} sentences; in the EEG "
        f"of a fixated word the signal is {STRENGTH:g} times as strong as the noise. The encoder was trained to match "
        f"EEG and text ({encoder['parameters']:,} parameters), the decoder to generate the sentence "
        f"({decoder['parameters']:,} parameters). Decoding is free-running, without access to the text, and is "
        f"compared with the same decoder trained on noise.{underused(found, encoder)}",
        answer=f"{answer(found)} The EEG here is synthetic and has a signal by construction, so that the test can be "
        "judged: a noise control, the same decoder trained on noise, must fail it.",
        sections=sections(page, Path(before.run), encoder),
        facts={
            "sentences of equal length that fit better (chance 50 %)": percent(
                encoder["retrieval"]["same_length_rank"]
            ),
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
        features=TrialConfig(split=SplitConfig(unit="key", seed=config.seed, test=0.15)),
        augmentation=AsRecordedConfig(),
        model=CETMAERecipe(sizes=CETMAEConfig.planted(), pretraining=PretrainingConfig.planted()),
        optimizer=OptimizerConfig(lr=2e-3, weight_decay=1e-2),
        trainer=TrainerConfig(epochs=PRETRAIN_EPOCHS, batch_size=64, gradient_clip_val=1.0),
    )
    after = replace(
        before, run=str(folder / "decoder"), pretrained=before.run, model=E2TPTRRecipe(),
        trainer=replace(before.trainer, epochs=DECODER_EPOCHS),
    )  # fmt: skip
    return before, after


def sections(page: Findings, encoder: Path, learnt: dict[str, Any]) -> list[Section]:
    """Learning curve, decoded sentences, and their tests."""
    parts = [
        pages.learning_curve(encoder, learnt["best_epoch"], pages.PRETRAINING_CURVE),
        figures.sample_decodes(page.decodes),
        *page.assessment,
        figures.control_comparison(page.controls, page.control_score),
    ]
    if page.saliency is not None:
        parts.append(figures.electrode_importance(page.saliency, page.saliency_measure))
    if page.power is not None:
        parts.append(figures.power_curve(*page.power))
    return parts


def answer(found: Mapping[str, Any]) -> str:
    """The headline of the tests in a sentence."""
    difference = f"{found['excess']['difference']:+.3f} over the noise control, p = {found['p']:.3f}"
    return f"Yes ({difference})." if found["p"] < 0.05 else f"There is no evidence that they do ({difference})."


def underused(found: Mapping[str, Any], encoder: Mapping[str, Any]) -> str:
    """A remark where the encoder distinguishes sentences and the decoder does not."""
    if encoder["retrieval"]["p"] >= 0.05 or found["p"] < 0.05:
        return ""
    return (
        " The encoder distinguishes sentences by their EEG, so the information is available; the decoder, after "
        f"{DECODER_EPOCHS} short epochs, generates frequent words instead of using it."
    )


def percent(fraction: float | None) -> str:
    return "too few sentences" if fraction is None else f"{100 * fraction:.0f} %"
