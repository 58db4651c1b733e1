"""Energy of SpikeSCR: counts against loops written by hand, and what they may not depend on."""

import dataclasses
import json

import pytest
import torch
from torch import Tensor, nn

from spikeloom.accel.analysis.energy import FLOAT32, EnergyConstants, Operations
from spikeloom.accel.common.batches import BatchIndex
from spikeloom.speech.batches import FeatureSet, SpeechBatch, featurise
from spikeloom.speech.datasets.spike_trains import Events, SpikeTrains
from spikeloom.speech.datasets.utterances import Utterances
from spikeloom.speech.energy import count_operations
from spikeloom.speech.features.event_bins import EventBinsConfig
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.models.spikescr import SpikeSCR, SpikeSCRConfig, SpikingAttention

RATE_HZ = 16_000


def build(**options: object) -> SpikeSCR:
    """A model in evaluation whose every neuron site fires on mel frames and on counts."""
    torch.manual_seed(0)
    model = SpikeSCRConfig(**{"width": 32, "heads": 2, **options}).build(140, 5)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm1d)):
        nn.init.uniform_(norm.weight, 1.0, 2.0)
        nn.init.uniform_(norm.bias, 0.2, 0.8)
    return model.eval()


def mel_set(seconds: tuple[float, ...] = (0.3, 0.5, 0.41)) -> FeatureSet:
    generator = torch.Generator().manual_seed(0)
    waveforms = [0.1 * torch.randn(round(RATE_HZ * s), generator=generator).numpy() for s in seconds]
    n = len(waveforms)
    clips = Utterances(
        waveforms=waveforms, labels=torch.arange(n).remainder(2).numpy(), speakers=["a"] * n,
        names=[str(i) for i in range(n)], class_names=("no", "yes"), sample_rate_hz=RATE_HZ,
    )  # fmt: skip
    return featurise(clips, LogMelConfig.gsc().build())


def count_set(events_per_clip: int = 4000) -> FeatureSet:
    generator = torch.Generator().manual_seed(0)
    events = [
        Events(
            times_s=0.3 * torch.rand(events_per_clip, generator=generator, dtype=torch.float64).sort().values.numpy(),
            units=torch.randint(0, 700, (events_per_clip,), generator=generator).numpy(),
        )
        for _ in range(3)
    ]
    clips = SpikeTrains(
        events=events, labels=torch.tensor([0, 1, 0]).numpy(), speakers=["a"] * 3, names=["0", "1", "2"],
        class_names=("no", "yes"),
    )  # fmt: skip
    return featurise(clips, EventBinsConfig().build())


def part(counts: Operations, name: str) -> tuple[float, float, float]:
    (row,) = [row for row in counts.layers if row.name == name]
    return row.ac, row.mac, row.dense


def test_the_embedding_of_mel_frames_costs_what_the_published_budget_could_not_pay():
    counts = count_operations(build(width=256, heads=16), mel_set((1.0,)))
    ac, mac, dense = part(counts, "embedding")
    before_edges = mac + 2 * 140 * 256  # the first and the last step lack one tap
    assert counts.steps == 101
    assert (ac, before_edges) == (0, 3 * 140 * 256 * 101)
    assert before_edges == pytest.approx(10.86e6, rel=1e-3)
    assert mac == dense
    assert FLOAT32.mac_pj * before_edges * 1e-9 == pytest.approx(0.050, abs=5e-4)  # mJ


def test_event_counts_accumulate_once_for_each_event_and_synapse():
    features = count_set()
    counts = count_operations(build(), features)
    expected = 0.0
    for clip in range(3):
        frames = features.frames.batch([clip])[0][0]
        taps = torch.full((len(frames),), 3.0)
        taps[0] -= 1
        taps[-1] -= 1
        expected += float((frames.sum(1) * taps).sum()) * 32
    assert frames.max() > 1
    assert part(counts, "embedding")[:2] == (expected / 3, 0)


def test_a_silent_input_makes_the_embedding_accumulate_nothing():
    assert part(count_operations(build(), count_set(0)), "embedding")[:2] == (0, 0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("features", [mel_set, count_set], ids=["mel", "counts"])
def test_accumulates_are_bounded_by_the_dense_count(causal, features):
    model = build(causal=causal, depth=2)
    counts = count_operations(model, features())
    for layer in counts.counter.connections.values():
        assert layer.ac <= layer.largest * layer.dense, layer.path
        assert layer.integer or layer.path == "embedding.conv.conv"
    residual = counts.counter.connections["head"]
    assert 1 < residual.largest <= 1 + 4 * 2
    assert all(0 < rate < 1 for rate in counts.firing_rates.values()), counts.firing_rates


@pytest.mark.parametrize(("causal", "window"), [(False, None), (True, None), (True, 9)])
def test_attention_counts_are_those_of_a_double_loop(causal, window):
    model, features = build(causal=causal, attn_window=window), mel_set((0.3,))
    spikes: dict[str, Tensor] = {}
    (attention,) = [m for m in model.modules() if isinstance(m, SpikingAttention)]
    attention.qkv_neurons.register_forward_hook(lambda m, a, out: spikes.__setitem__("qkv", out[0][:, 0]))
    attention.rotated_neurons.register_forward_hook(lambda m, a, out: spikes.__setitem__("qk", out[0][:, 0]))
    counts = {form: count_operations(model, features, attention_form=form) for form in ("quadratic", "running_sum")}
    q, k = spikes["qk"][:, 0].double(), spikes["qk"][:, 1].double()
    v = spikes["qkv"].unflatten(1, (3, 2, -1))[:, 2].double()
    steps, heads, width = q.shape
    assert q.any() and k.any() and v.any()

    scores = attended = pairs = 0.0
    for t in range(steps):
        for s in range(steps):
            if causal and (s > t or (window is not None and s <= t - window)):
                continue
            pairs += heads
            for h in range(heads):
                score = float(q[t, h] @ k[s, h])
                scores += score
                attended += score * float(v[s, h].sum())
    updates = reads = sums = 0.0
    S = torch.zeros(heads, width, width, dtype=torch.float64)
    outer = [k[s, :, :, None] * v[s, :, None, :] for s in range(steps)]
    if not causal:
        S, updates, sums = sum(outer), sum(float(x.sum()) for x in outer), float(steps)
    for t in range(steps):
        if causal:
            S, updates, sums = S + outer[t], updates + float(outer[t].sum()), sums + 1
            if window is not None and t >= window:
                S, updates, sums = S - outer[t - window], updates + float(outer[t - window].sum()), sums + 1
        reads += float((q[t, :, :, None] * S).sum())

    ac, mac, dense = part(counts["quadratic"], "block 1, attention: q k v")
    assert (ac, mac, dense) == (scores + attended, 0, 2 * pairs * width)
    ac, mac, dense = part(counts["running_sum"], "block 1, attention: q k v")
    assert (ac, mac, dense) == (updates + reads, 0, (sums + steps) * heads * width**2)
    executed = count_operations(model, features)
    assert executed.details["attention_form"] == ("quadratic" if window else "running_sum")
    assert executed.details["attention_ac"] == {"quadratic": scores + attended, "running_sum": updates + reads}


def test_dense_count_follows_the_formula_of_the_model():
    """3NC + L(4C^2 + 4CH + 4C^2 + kC) + C classes a step, less the taps beyond the edges, plus products."""
    C, H, T = 32, 64, 51
    counts = count_operations(build(mlp_ratio=2, depth=2), mel_set((0.5,)))
    assert counts.steps == T
    taps = sum(min(T, t + 16) - max(0, t - 15) for t in range(T))  # of the depthwise convolution
    layers = (3 * T - 2) * 140 * C + 2 * (T * (8 * C**2 + 4 * C * H) + taps * C) + T * C * 5
    products = 2 * (4 * C + C + 2 * C * (C // 2)) * T
    assert counts.dense_macs() == layers + products
    rotation, gate = part(counts, "block 2, attention: rotation"), part(counts, "block 2, convolution: gated value")
    assert (rotation[1], gate[1]) == (4 * C * T, C * T)
    assert counts.additions["residual_adds"] == 2 * 4 * C * T


@pytest.mark.parametrize("causal", [False, True])
def test_counts_depend_on_the_clip_alone(causal):
    model = build(causal=causal)
    whole = count_operations(model, mel_set())
    features = mel_set()
    alone = [
        count_operations(model, dataclasses.replace(features, frames=_only(features, [i]), labels=features.labels[[i]]))
        for i in (2, 0, 1)
    ]
    for name in ("ac", "mac", "dense_macs", "energy_pj"):
        assert whole.as_dict()[name] == pytest.approx(sum(c.as_dict()[name] for c in alone) / 3, rel=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_padding_is_not_counted(causal):
    class Padded:
        augmentation = None

        def __len__(self) -> int:
            return 1

        def __getitem__(self, draw: BatchIndex) -> SpeechBatch:
            batch = mel_set()[BatchIndex(0, torch.tensor([0]))]
            return batch._replace(features=torch.cat((batch.features, torch.full((1, 40, 140), 7.5)), 1))

    model = build(causal=causal)
    assert count_operations(model, Padded()).as_dict() == count_operations(model, mel_set((0.3,))).as_dict()


def _only(features: FeatureSet, ids: list[int]):
    return type(features.frames)(features.frames.clips.select(ids), features.frames.front_end, features.budget)


def test_energy_is_the_sum_over_parts_at_the_given_constants():
    counts = count_operations(build(), mel_set(), constants=EnergyConstants(ac_pj=0.1, mac_pj=3.0))
    assert counts.energy_pj == pytest.approx(sum(0.1 * row.ac + 3.0 * row.mac for row in counts.layers), rel=1e-12)
    document = json.loads(json.dumps(counts.as_dict(), allow_nan=False))
    assert document["samples"] == 3
    assert document["membrane_updates"] == pytest.approx(counts.steps * (32 + 14 * 32 + 2 * 32))


def test_wrong_requests_are_named():
    with pytest.raises(ValueError, match="n_clips must be at least 1, got 0"):
        count_operations(build(), mel_set(), 0)
    augmented = mel_set().with_augmentation(lambda x, lengths, ids, epoch: (x, lengths))
    with pytest.raises(ValueError, match=r"use with_augmentation\(None\)"):
        count_operations(build(), augmented)


def test_counting_leaves_the_model_as_it_was():
    model = build().train()
    count_operations(model, mel_set())
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())
