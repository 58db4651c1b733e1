"""The rules that LATS is compared with: the numbers of their released code, their counts and schedules."""

import math

import pytest
import torch
from torch import nn

from spikeloom.accel.learning.pruning.lats import LATSConfig, SineThresholdConfig
from spikeloom.accel.learning.pruning.layers import prunable
from spikeloom.accel.learning.pruning.layerwise import DNWConfig, KeepLargest, LayerwiseConfig, whole_share
from spikeloom.accel.learning.pruning.learned_threshold import LearnedThreshold, LearnedThresholdConfig
from spikeloom.accel.learning.pruning.rigl import RigLConfig, erk_densities, uniform_densities, update_fraction
from spikeloom.accel.learning.pruning.schedules import (
    geometric_homotopy,
    lats_epochs,
    linear,
    released_gmp,
    s_lats,
    sine,
)
from spikeloom.accel.learning.pruning.soft_threshold import soft_threshold
from spikeloom.accel.learning.pruning.sparsity import MacCounter
from tests.accel.learning.networks import mlp, train
from tests.accel.learning.test_pruning import optimizer_of, problem, resumed_halfway
from tests.golden import golden_files

FILES = "pruning_rules*.safetensors"


@pytest.mark.golden
def test_str_takes_the_released_steps() -> None:
    for golden in golden_files(FILES):
        said, tensors = golden.json("config")["str"], golden.under("str")
        weight, rule = nn.Parameter(tensors["weight0"].clone()), LearnedThreshold(float(tensors["s0"].flatten()[0]))
        optimizer = torch.optim.SGD(
            [{"params": [weight], "weight_decay": said["weight_decay"]},
             {"params": [rule.s], "weight_decay": said["s_weight_decay"]}],
            lr=said["lr"], momentum=said["momentum"],
        )  # fmt: skip
        for k in range(said["steps"]):
            optimizer.zero_grad()
            effective = rule(weight)
            torch.testing.assert_close(effective.detach(), tensors["effective"][k], atol=1e-6, rtol=1e-6)
            (effective * tensors["upstream"][k]).sum().backward()
            torch.testing.assert_close(weight.grad, tensors["grad_weight"][k], atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(rule.s.grad, tensors["grad_s"][k].view(1, 1), atol=1e-5, rtol=1e-5)
            optimizer.step()
            torch.testing.assert_close(weight.detach(), tensors["weight"][k], atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(rule.s.detach(), tensors["s"][k].view(1, 1), atol=1e-6, rtol=1e-6)


@pytest.mark.golden
def test_dnw_and_gmp_keep_and_pass_back_what_the_released_code_does() -> None:
    for golden in golden_files(FILES):
        config, dnw, gmp = golden.json("config"), golden.under("dnw"), golden.under("gmp")
        zeros = whole_share(config["prune_rate"], dnw["weight"].numel())
        for rule, expected in ((KeepLargest(zeros, False), dnw), (KeepLargest(zeros, True), gmp)):
            rule.bfloat16()  # whatever becomes of the precision of a model, the count stays
            weight = nn.Parameter(dnw["weight"].clone())
            effective = rule(weight)
            assert torch.equal(effective.detach(), expected["effective"])
            (effective * dnw["upstream"]).sum().backward()
            assert torch.equal(weight.grad, expected["grad_weight"])
        first, last = config["gmp_epochs"]
        rates = [released_gmp(epoch, first, last, config["prune_rate"]) for epoch in range(first, last + 1)]
        assert rates == pytest.approx(gmp["prune_rate"].tolist(), abs=1e-6)


@pytest.mark.golden
def test_soft_threshold_and_schedules_are_the_released_ones() -> None:
    for golden in golden_files(FILES):
        config, soft, schedule = golden.json("config"), golden.under("soft"), golden.under("schedule")
        for i, width in enumerate(config["soft_widths"]):
            theta = soft["theta"].clone().requires_grad_()
            effective = soft_threshold(theta, torch.tensor(width))
            torch.testing.assert_close(effective.detach(), soft[f"{i}/effective"], atol=3e-7, rtol=0)
            (effective * soft["upstream"]).sum().backward()
            moved = theta.detach() != 0  # the released gradient is 0 where theta is exactly 0, ours 1
            torch.testing.assert_close(theta.grad[moved], soft[f"{i}/grad_theta_released"][moved], atol=3e-7, rtol=0)
        n = config["schedule_N"]
        forms = {"linear": linear, "sine": sine, "s_lats": s_lats} | {
            f"pgh_{b}": (lambda x, b=b: geometric_homotopy(x, b)) for b in config["pgh_b"]
        }
        for name, form in forms.items():
            ours = [form(k / n) for k in range(n + 1)]
            assert ours == pytest.approx(schedule[name].double().tolist(), abs=1e-6), name
        ours = [lats_epochs(k, n) for k in range(n + 1)]
        assert ours == pytest.approx(schedule["lats_epoch_base"].double().tolist(), abs=1e-6)


CONFIGS = {
    "str": LearnedThresholdConfig(s_init=-6.0, s_decay=0.02), "gmp": LayerwiseConfig(sparsity=0.8),
    "dnw": DNWConfig(sparsity=0.8), "rigl": RigLConfig(sparsity=0.8, every=9),
    "rigl uniform": RigLConfig(sparsity=0.6, every=9, distribution="uniform"),
    "sine": SineThresholdConfig(sparsity=0.8),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_target_is_met_a_state_goes_on_exactly_and_the_model_bakes(name: str, kind: str) -> None:
    x, y = problem()

    def start():
        torch.manual_seed(0)
        model = mlp(20, 40, 4)
        pruner = CONFIGS[name].build(model)  # before the optimiser: STR has parameters of its own
        return model, pruner, optimizer_of(model, kind)

    model, pruner, optimizer = start()
    plan = train(model, pruner, x, y, optimizer, epochs=6, batch=32)
    sparsity = pruner.report().sparsity
    assert pruner.finished
    assert sparsity.sparsity_of_pruned_layers > 0
    if pruner.target is not None:
        assert pruner.target - 1e-9 <= sparsity.sparsity_of_pruned_layers < pruner.target + 0.01
        if name != "rigl uniform":  # its first layer is dense
            assert pruner.target == pytest.approx(CONFIGS[name].sparsity, abs=0.01)

    model3, _ = resumed_halfway(start, plan)
    with torch.no_grad():
        assert torch.equal(model3(x), model(x))
        before = model(x)
        pruner.bake()
        assert torch.equal(model(x), before)
    assert set(model.state_dict()) == set(mlp(20, 40, 4).state_dict())
    zeros = sum(int((m.weight == 0).sum()) for m in model if isinstance(m, nn.Linear))
    assert zeros == sparsity.zeros


def test_str_of_a_low_start_moves_by_decay_alone() -> None:
    """s = -3200: sigmoid(s) and its gradient are 0 in float32."""
    torch.manual_seed(0)
    model = mlp(20, 40, 4)
    pruner = LearnedThresholdConfig().build(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.0, weight_decay=1e-3)
    x, y = problem()
    train(model, pruner, x, y, optimizer, epochs=1, batch=64, steps=range(0, 5))
    assert pruner.report().sparsity.zeros == 0
    for entry in pruner.entries:
        assert -3200 < float(entry.rule.s.detach()) < -3200 * (1 - 1e-3 * 0.1 * 5)


@pytest.mark.parametrize(
    ("sparsity", "eps", "n_dense", "erk_ratio", "uniform_ratio"),
    [
        (0.8, 99.557, 8, 0.4138, 0.2231), (0.9, 48.784, 1, 0.2418, 0.1260), (0.95, 24.371, 0, 0.1217, 0.0774),
        (0.965, 17.060, 0, 0.0852, 0.0628),
    ],
)  # fmt: skip
def test_erk_and_uniform_densities_are_the_published_ones(
    sparsity: float, eps: float, n_dense: int, erk_ratio: float, uniform_ratio: float
) -> None:
    with torch.device("meta"):
        model = resnet50()
    counter = MacCounter(model)
    model(torch.empty(1, 3, 224, 224, device="meta"))
    macs = counter.of_one(1)
    layers = prunable(model, RigLConfig())
    assert len(layers) == 54
    shapes = [tuple(layer.weight.shape) for _, layer in layers]
    found, densities = erk_densities(shapes, sparsity)
    assert found == pytest.approx(eps, abs=1e-3)
    assert sum(d == 1.0 for d in densities) == n_dense
    for wanted, of in ((erk_ratio, densities), (uniform_ratio, uniform_densities(shapes, sparsity))):
        left = sum(macs[path] * d for (path, _), d in zip(layers, of, strict=True))
        assert left / sum(macs.values()) == pytest.approx(wanted, abs=1e-4)


def resnet50() -> nn.Module:
    """The layers of ResNet-50 with its stride on 3 x 3 convolutions and a classifier without bias; sizes alone."""
    layers: list[nn.Module] = []

    class Bottleneck(nn.Module):
        def __init__(self, n_in: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
            shape = stride != 1 or n_in != 4 * width
            self.down = nn.Conv2d(n_in, 4 * width, 1, stride, bias=False) if shape else nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv3(self.conv2(self.conv1(x))) + self.down(x)

    n_in = 64
    for stage, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for i in range(depth):
            layers.append(Bottleneck(n_in, width, 2 if stage and i == 0 else 1))
            n_in = 4 * width
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.MaxPool2d(3, 2, 1),
        *layers,
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(2048, 1000, 1, bias=False),
    )


def test_rigl_keeps_its_count_and_grows_zeros_without_momentum() -> None:
    torch.manual_seed(0)
    model = mlp(20, 40, 4)
    pruner = RigLConfig(sparsity=0.7, every=5, until=1.0).build(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner.plan([0.1] * 40, optimizer)
    x, y = problem()
    counts, moved = [[int(e.rule.mask.sum()) for e in pruner.entries]], 0
    for step in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:64]), y[:64]).backward()
        masks = [e.rule.mask.clone() for e in pruner.entries]
        values = [e.theta.detach().clone() for e in pruner.entries]
        pruner.before_step(optimizer)
        optimizer.step()
        moves = step > 0 and step % 5 == 0
        for entry, before, value in zip(pruner.entries, masks, values, strict=True):
            grown, kept = entry.rule.mask & ~before, entry.rule.mask & before
            assert bool(grown.any()) <= moves
            moved += int(grown.sum())
            assert not entry.theta[grown].any()
            assert not optimizer.state[entry.theta]["momentum_buffer"][grown].any()
            if moves:  # no optimiser step: what stays keeps its value, dropped and grown again or not
                assert torch.equal(entry.theta[kept], value[kept])
        pruner.after_step(optimizer)
        counts.append([int(e.rule.mask.sum()) for e in pruner.entries])
    assert moved > 0
    assert all(count == counts[0] for count in counts)


def test_the_fraction_that_moves_falls_from_alpha_to_nothing() -> None:
    assert update_fraction(0, 100, 0.3) == 0.3
    assert update_fraction(50, 100, 0.3) == pytest.approx(0.15)
    assert update_fraction(100, 100, 0.3) == update_fraction(150, 100, 0.3) == 0.0


@pytest.mark.parametrize("decay", ["effective", "latent"])
def test_the_l1_coefficient_is_flat_through_the_published_warm_up(decay: str) -> None:
    """5 of 100 epochs of warm-up, then a cosine, both by the epoch: lambda moves by rounding alone, and with the decay
    on the latent weights by exactly the decay times the threshold. A skipped step moves nothing."""
    rates = [0.256 * (min(e + 1, 5) / 5 if e < 5 else 0.5 * (1 + math.cos(math.pi * (e - 5) / 95))) for e in range(100)]
    torch.manual_seed(0)
    model = mlp(20, 40, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.256, momentum=0.875, weight_decay=2**-15)
    pruner = LATSConfig(threshold=0.05, decay=decay, until=1.0).build(model)
    plan = [rate for rate in rates for _ in range(3)]
    pruner.plan(plan, optimizer)
    found, skipped = [], {7, 40}
    for step, rate in enumerate(plan):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        model(torch.ones(2, 20)).square().mean().backward()
        pruner.before_step(optimizer)
        optimizer.step()
        before = pruner.schedule.threshold
        pruner.after_step(optimizer, stepped=step not in skipped)
        if step in skipped:
            assert pruner.schedule.threshold == before
        else:
            found.append(pruner.l1 - (2**-15 * pruner.schedule.threshold if decay == "latent" else 0.0))
    exact = 0.05 / math.fsum(plan) * (1 - 0.875)
    assert max(abs(l1 / exact - 1) for l1 in found) < 1e-12


def test_lats_holds_its_threshold_for_the_last_quarter_where_it_aims_at_a_sparsity() -> None:
    for config, held in (
        (LATSConfig(sparsity=0.8), 30),
        (LATSConfig(threshold=0.1), 40),
        (LATSConfig(sparsity=0.8, until=1.0), 40),
        (SineThresholdConfig(sparsity=0.8), 40),
    ):
        model = mlp(20, 40, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        pruner = config.build(model)
        pruner.plan([0.1] * 40, optimizer)
        assert pruner.schedule.horizon == held
