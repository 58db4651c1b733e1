"""Which layers see only spikes, and what an inference costs: both against published and hand-counted figures."""

import pytest
import torch
from torch import nn

from spikeloom.accel.analysis.energy import FLOAT32
from spikeloom.accel.analysis.operations import OperationCounter
from spikeloom.accel.analysis.spike_driven import SpikeDriven, firing_rates
from spikeloom.vision.energy import (
    count_operations,
    counting,
    dense_macs,
    designed_exceptions,
    encoder_path,
    layer_shapes,
    permitted,
    real_valued_macs,
)
from spikeloom.vision.models.blocks import SpikeProduct, SpikeSum
from spikeloom.vision.models.spiking_transformer import SpikingTransformer
from spikeloom.vision.models.variants import create_model
from tests.vision.small import SMALL, small

EVERY = pytest.mark.parametrize("name", SMALL)
BINARY = [  # binary layers, layers
    ("spikingformer_4_384", 28, 30),
    ("spikingformer_2_256_dvs", 16, 18),
    ("spikingformer_8_384", 52, 54),
    ("spikingformer_cml_4_384", 28, 30),
    ("ms_qkformer_hst_4_384", 31, 32),
    ("ms_qkformer_hst_10_384", 67, 68),
    ("ms_qkformer_digits", 24, 26),
    ("maxformer_10_384", 61, 62),
    ("qkformer_hst_4_384", 12, 32),
    ("qkformer_hst_2_256_dvs128", 9, 20),
    ("qkformer_hst_10_384", 25, 68),
]


@pytest.mark.parametrize(("name", "binary", "layers"), BINARY)
def test_the_design_has_the_published_number_of_binary_layers(name: str, binary: int, layers: int) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert layers - len(designed_exceptions(model)) == binary
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == layers


@EVERY
@pytest.mark.parametrize(
    ("training", "autocast"),
    [
        (False, False),
        (True, True),
        pytest.param(False, True, marks=pytest.mark.slow),
        pytest.param(True, False, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_exactly_the_designed_layers_see_more_than_spikes(name: str, training: bool, autocast: bool) -> None:
    model, x = small(name)
    model.train(training)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), counting(model) as counter:
        model(x)
    purity = judged(counter, model)
    assert not purity.silent, "a silent layer passes any test"
    assert set(purity.exceptions) == designed_exceptions(model)
    if model.residual == "sew":
        assert purity.verdict == "not spike-driven"
        largest = {seen.path: seen.largest for seen in purity.layers}
        integer = {seen.path: seen.integer for seen in purity.layers}
        inner = purity.forbidden
        assert all(integer[path] for path in inner) and max(largest[path] for path in inner) > 1
        for i, stage in enumerate(model.stages):
            for j, _ in enumerate(stage.blocks):  # 0..2 behind the embedding, one more for each branch
                assert largest[f"stages.{i}.blocks.{j}.attn.q.conv"] <= 2 + 2 * j
                assert largest[f"stages.{i}.blocks.{j}.mlp.up.conv"] <= 3 + 2 * j
    else:
        assert purity.verdict == "spike-driven" and set(purity.exceptions) == permitted(model)
        assert len(purity.exceptions) == (1 if model.readout == "mean_lif" else 2)  # or averages are classified


@torch.no_grad()
def test_a_silent_model_is_inconclusive_and_a_tampered_one_is_caught() -> None:
    model, x = small("ms_qkformer_cifar")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.fill_(-5.0)
    with counting(model) as counter:
        model(x)
    assert judged(counter, model).verdict == "inconclusive"

    model, x = small("spikingformer_cifar")
    model.stages[0].blocks[0].mlp.down.lif.register_forward_hook(lambda m, a, out: (out[0] * 0.5, out[1]))
    with counting(model) as counter:
        model(x)
    purity = judged(counter, model)
    assert purity.verdict == "not spike-driven"
    assert purity.forbidden == ("stages.0.blocks.0.mlp.down.conv",)
    with pytest.raises(ValueError, match="never ran"), counting(model):
        pass


def test_firing_rates_are_those_of_the_neurons() -> None:
    model, x = small("spikingformer_cifar")
    with torch.no_grad(), firing_rates(model) as rates:
        model(x)
        once = dict(rates)
        model(x)
    assert rates == once and len(rates) == 18 and all(0 < rate < 1 for rate in rates.values())


def test_scale_and_threshold_are_powers_of_two() -> None:
    """0.125 * sum against 0.5 fires exactly where the sum itself fires against 4."""
    from spikeloom.accel.spiking.functional import lif_loop
    from spikeloom.vision.models.blocks import neuron

    sums = torch.randint(0, 200, (6, 500), generator=torch.Generator().manual_seed(0)).float()
    p = neuron(2.0)
    from dataclasses import replace

    scaled, _ = lif_loop(0.125 * sums, None, replace(p, threshold=0.5))
    raw, _ = lif_loop(sums, None, replace(p, threshold=4.0))
    assert torch.equal(scaled, raw)


def test_both_orders_of_attention_are_equal() -> None:
    q, k, v = (torch.rand(3, 2, 2, 8, 4, 6, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    product = SpikeProduct(2)
    q_, k_, v_ = (z.flatten(3).unflatten(2, (2, 4)) for z in (q, k, v))  # [T, B, heads, d, N]
    expected = (0.125 * (q_.mT @ k_) @ v_.mT).mT.reshape(q.shape)
    assert torch.equal(product(q, k, v), expected)
    wide = SpikeProduct(1)  # d = 8 < N = 24; with two tokens the other order is the cheaper one
    assert torch.equal(
        wide(q[..., :1, :2], k[..., :1, :2], v[..., :1, :2]),
        (0.125 * (q[..., :1, :2].flatten(3).mT @ k[..., :1, :2].flatten(3)) @ v[..., :1, :2].flatten(3).mT).mT.reshape(
            2, 2, 8, 1, 2
        ),
    )


# --- operations and energy ------------------------------------------------------------------------------------------

MACS = {
    "qkformer_hst_10_384": 5_831_236_608,
    "qkformer_hst_10_512": 10_337_570_816,
    "qkformer_hst_10_768": 23_194_122_240,
    "qkformer_hst_4_384": 1_511_280_384,
    "qkformer_hst_2_256_cifar10dvs": 506_989_056,
    "qkformer_hst_2_256_dvs128": 557_320_960,
    "spikingformer_8_384": 4_660_730_880,
    "spikingformer_8_512": 8_256_671_744,
    "spikingformer_8_768": 18_512_099_328,
    "spikingformer_4_384": 921_456_384,
    "spikingformer_2_256_dvs": 374_344_192,
}
ENCODER = {384: 65_028_096, 512: 86_704_128, 768: 130_056_192}


def judged(counter: OperationCounter, model: SpikingTransformer) -> SpikeDriven:
    return SpikeDriven(
        layers=tuple(counter.connections.values()),
        products=tuple(counter.products.values()),
        permitted=permitted(model),
    )


def on_meta(name: str) -> SpikingTransformer:
    with torch.device("meta"):
        return create_model(name)


@pytest.mark.parametrize("name", MACS)
def test_dense_macs_are_the_published_ones(name: str) -> None:
    model = on_meta(name)
    assert dense_macs(model, tuple(model.pretrained_cfg["input_size"])) == MACS[name]
    if model.layout == "imagenet":
        first = layer_shapes(model, (3, 224, 224))[0]
        assert first.path == encoder_path(model) and first.macs == ENCODER[model.num_features]


def test_real_valued_macs_and_energies_are_the_published_ones() -> None:
    model, size = on_meta("spikingformer_8_512"), (3, 224, 224)
    each, once = real_valued_macs(model, size), real_valued_macs(model, size, count_encoder_once=True)
    assert each == 347_329_512 and once == 87_217_128
    assert real_valued_macs(on_meta("spikingformer_8_768"), size) == 520_993_768
    constants, ac = FLOAT32, 6.51754e9
    assert constants.energy_pj(ac, each) / 1e9 == pytest.approx(7.4635, abs=5e-5)
    assert constants.energy_pj(ac, once) / 1e9 == pytest.approx(6.2670, abs=5e-5)
    assert constants.energy_pj(12.51366e9, 520_993_768) / 1e9 == pytest.approx(13.6589, abs=5e-5)


def test_events_at_a_border_meet_fewer_synapses() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    with torch.no_grad(), OperationCounter(conv) as counter:
        conv(torch.ones(1, 1, 3, 3))
    assert counter.connections[""].events == 49 and 9 * conv.weight[0].numel() == 81


def test_events_are_multiplied_in_the_first_convolution_whatever_they_count() -> None:
    """Frames without a 2 in them, or without any event, cost what all others do."""
    model, frames = small("spikingformer_dvs", batch=2)
    size = (model.in_chans, *frames.shape[-2:])
    for x in (frames, frames.clamp(max=1), torch.zeros_like(frames)):
        assert count_operations(model, [x]).formula_mac == real_valued_macs(model, size, T=4)


@EVERY
def test_operations_add_up_from_the_spikes(name: str) -> None:
    model, x = small(name, batch=3)
    static = x.dim() == 4
    found = count_operations(model, [x[:1], x[1:]] if static else [x[:, :1], x[:, 1:]])
    assert found.samples == 3 and found.steps == 4
    size = (model.in_chans, *x.shape[-2:])
    assert found.spike_driven.exceptions == tuple(
        layer.path for layer in found.layers if layer.path in designed_exceptions(model)
    )
    shapes = {shape.path: shape for shape in layer_shapes(model, size)}
    for layer in found.layers:
        if layer.kind == "layer":
            times = 1 if layer.path == "head" and model.readout != "mean_lif" else 4
            operations = shapes[layer.path].macs + shapes[layer.path].bias_adds
            assert layer.dense == times * shapes[layer.path].macs
            assert layer.formula_mac + layer.formula_ac == pytest.approx(
                times * operations * (layer.rate if layer.binary else 1)
            )
            assert layer.ac + layer.mac <= layer.dense
    if model.residual == "ms":
        assert found.formula_mac == real_valued_macs(model, size, T=4)
        if static:
            once = count_operations(model, [x], count_encoder_once=True)
            saved = found.formula_mac - once.formula_mac
            assert saved == 3 * shapes[encoder_path(model)].macs
        else:
            with pytest.raises(ValueError, match="count_encoder_once is for pictures"):
                count_operations(model, [x], count_encoder_once=True)
    energy = 0.9 * found.ac + 4.6 * found.mac
    assert found.energy_pj == pytest.approx(energy) and found.as_dict()["energy_pj"] == energy


def test_attention_is_counted_event_by_event() -> None:
    model, x = small("ms_qkformer_cifar", batch=2)
    operands: dict[str, tuple[torch.Tensor, ...]] = {}
    hooks = [
        m.register_forward_hook(lambda m, args, out, path=path: operands.__setitem__(path, args))
        for path, m in model.named_modules()
        if isinstance(m, SpikeProduct | SpikeSum)
    ]
    found = {layer.path: layer for layer in count_operations(model, [x]).layers}
    for hook in hooks:
        hook.remove()
    for path, args in operands.items():
        heads = model.get_submodule(path).heads
        q, *kv = (z.flatten(3).unflatten(2, (heads, -1)) for z in args)
        if not kv:
            assert found[path].ac == float(q.sum()) / 2
            continue
        k, v = kv
        width = q.shape[3]
        added = sum(
            float(k[t, b, h, :, n].sum() * v[t, b, h, :, n].sum() + width * q[t, b, h, :, n].sum())
            for t in range(4) for b in range(2) for h in range(heads) for n in range(q.shape[4])
        )  # fmt: skip
        assert found[path].ac == pytest.approx(added / 2)
        rate = q.mean() + torch.minimum(k.mean(), v.mean())
        assert found[path].formula_ac == pytest.approx(float(4 * heads * q.shape[4] * width**2 * rate), rel=1e-6)
