"""Simple decoders find a strong signal by the same test, and nothing where there is none."""

import pytest

from spikeloom.bci.data.tokenizer import train_tokenizer
from spikeloom.bci.data.trials import TrialSplits, read_splits
from spikeloom.bci.evaluation.baselines import BASELINES, BaselinesConfig, run_baseline
from spikeloom.bci.evaluation.rows import Decodings
from spikeloom.bci.evaluation.significance import WordWeights, sentence_permutation
from spikeloom.bci.models.baselines import LETTERS, letters_of
from spikeloom.bci.models.cet_mae import CETMAEConfig
from spikeloom.bci.synthetic.zuco import SyntheticZuCoConfig
from spikeloom.bci.zuco.samples import SamplesConfig
from spikeloom.bci.zuco.splits import SplitConfig


def splits(strength: float, seed: int = 1) -> TrialSplits:
    source = SyntheticZuCoConfig(n_subjects=3, n_sentences=150, signal_strength=strength, seed=seed).build()
    return read_splits(source, SamplesConfig().build(), SplitConfig(unit="key", valid=0.1, test=0.2))


@pytest.fixture(scope="module")
def strong() -> TrialSplits:
    return splits(2.0)


def p_of(name: str, trials: TrialSplits, config: BaselinesConfig | None = None) -> float:
    train, valid, test = (trials[split] for split in ("train", "valid", "test"))
    made = run_baseline(
        name, train, valid, test, tokenizer=train_tokenizer(train.texts, 500), sizes=CETMAEConfig.planted(),
        config=config or BaselinesConfig(), seed=0,
    )  # fmt: skip
    assert len(made.outputs) == len(test) and made.seconds > 0
    written = Decodings(
        outputs=made.outputs, references=test.texts, subjects=test.subjects, tasks=test.tasks, seeds=(0,) * len(test)
    )
    return sentence_permutation(written, WordWeights(train.texts), 199).p


@pytest.mark.parametrize("name", ["ridge", pytest.param("word_retrieval", marks=pytest.mark.slow)])
def test_linear_decoders_find_a_strong_signal_and_none_without(name: str, strong: TrialSplits) -> None:
    assert p_of(name, strong) < 0.05
    assert sorted(p_of(name, splits(0.0, seed)) for seed in (1, 2, 3))[1] > 0.05  # one of three may be small by chance


@pytest.mark.parametrize("name", ["ctc", "transformer_bart"])
def test_networks_train_and_write_freely(name: str, strong: TrialSplits) -> None:
    assert 0 < p_of(name, strong, BaselinesConfig(steps=20, batch_size=8)) <= 1


def test_unknown_baselines_and_steps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"baselines\.names=\['tea'\] are unknown; use some of ridge"):
        BaselinesConfig(names=["tea"]).check()
    with pytest.raises(ValueError, match=r"baselines\.steps=3"):
        BaselinesConfig(steps=3).check()
    assert len(BASELINES) == 4 and [LETTERS[k] for k in letters_of("Ab-c'")] == ["a", "b", "c", "'"]
