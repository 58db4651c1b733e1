"""A network on disk is the same network, a resumed run the same run, and a damaged file says so."""

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from spikeloom.accel.learning.stochastic.arrays import ArrayOptions
from spikeloom.accel.learning.stochastic.files import load_checkpoint, load_network, save_checkpoint, save_network
from spikeloom.accel.learning.stochastic.network import StochasticConfig, train_epoch, votes
from spikeloom.accel.learning.stochastic.synapses import Synapses, UpdateRule

WEIGHTS = ("real", "int4", "ternary", "epiram_3", "pcm")


def settings(weights: str) -> StochasticConfig:
    update = "carry" if weights in ("epiram_3", "pcm") else "real"
    array = ArrayOptions(spread_g_max=0.1, stuck_low=0.1, refresh_every=3)
    return StochasticConfig(weights=weights, hidden=[9], rule=UpdateRule(update=update), array=array)


def data() -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(1)
    return torch.rand((60, 1, 4, 4), generator=generator), torch.randint(0, 3, (60,), generator=generator)


def train(config: StochasticConfig, epochs: int, stop: Path | None = None, start: Path | None = None) -> list[Synapses]:
    generator = Generator().manual_seed(2)
    network = config.build((1, 4, 4), 3)
    synapses = config.synapses(network, 20, generator)
    done = load_checkpoint(start, synapses, generator) if start else []
    for epoch in range(len(done), epochs):
        train_epoch(network, synapses, *data(), 20, generator)
        done.append({"epoch": epoch + 1})
    if stop:
        save_checkpoint(stop, synapses, generator, done)
    return synapses


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_resumed_run_is_the_unbroken_run(tmp_path: Path, weights: str) -> None:
    path = tmp_path / "last.safetensors"
    train(settings(weights), 2, stop=path)
    resumed, unbroken = train(settings(weights), 5, start=path), train(settings(weights), 5)
    for mine, theirs in zip(resumed, unbroken, strict=True):
        for name, tensor in theirs.tensors().items():
            assert torch.equal(mine.tensors()[name], tensor), name


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_stored_network_votes_as_before(tmp_path: Path, weights: str) -> None:
    config = settings(weights)
    synapses = train(config, 3)
    save_network(tmp_path, config, (1, 4, 4), ("a", "b", "c"), 20, synapses)
    network, loaded, names = load_network(tmp_path)
    assert names == ("a", "b", "c") and network == config.build((1, 4, 4), 3)
    for precision in ("hp", "b", "s"):
        mine, theirs = (
            votes(network, s, data()[0], precision, Generator().manual_seed(3), repeats=2) for s in (loaded, synapses)
        )
        assert torch.equal(mine, theirs)


def test_a_damaged_file_names_itself_and_the_remedy(tmp_path: Path) -> None:
    config = settings("real")
    synapses = train(config, 1)
    save_network(tmp_path, config, (1, 4, 4), ("a", "b", "c"), 20, synapses)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"model.safetensors.*overwrite=true"):
        load_network(tmp_path)
    save_network(tmp_path, settings("int4"), (1, 4, 4), ("a", "b", "c"), 20, synapses)
    with pytest.raises(ValueError, match=r"model.safetensors.*overwrite=true"):
        load_network(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config.json"):
        load_network(tmp_path)
    half = tmp_path / "last.safetensors"
    half.write_bytes(b"half")
    with pytest.raises(ValueError, match=r"last.safetensors.*overwrite=true"):
        train(config, 2, start=half)
