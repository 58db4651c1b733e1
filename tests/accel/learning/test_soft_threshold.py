"""The operator, its gradient, ISTA and the LASSO it solves, and baking."""

import copy

import pytest
import torch
from torch import nn

from spikeloom.accel.learning.pruning.lats import LATSConfig
from spikeloom.accel.learning.pruning.soft_threshold import SoftThreshold, bake, install, soft_threshold, thresholded


def shrink(x: torch.Tensor, by: float) -> torch.Tensor:
    """The definition."""
    return x.sign() * torch.clamp(x.abs() - by, min=0)


def test_the_operator_is_its_definition_with_exact_zeros() -> None:
    theta = torch.tensor([-2.0, -0.5, -0.3, -0.0, 0.0, 0.1, 0.5, 0.7, 3.0], dtype=torch.float64)
    w = soft_threshold(theta, torch.tensor(0.5, dtype=torch.float64))
    assert torch.allclose(w, shrink(theta, 0.5), atol=1e-16)
    assert (w == 0).tolist() == (theta.abs() <= 0.5).tolist()
    assert torch.equal(soft_threshold(theta, torch.tensor(0.0, dtype=torch.float64)), theta)


def test_the_gradient_reaches_dead_weights_and_weights_at_zero() -> None:
    theta = torch.tensor([-2.0, -0.3, 0.0, 0.3, 2.0], requires_grad=True)
    upstream = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    soft_threshold(theta, torch.tensor(0.5)).backward(upstream)
    assert torch.equal(theta.grad, upstream)


def test_a_dead_weight_can_come_back() -> None:
    layer = nn.Linear(1, 1, bias=False)
    (entry,) = install([("l", layer)], threshold=0.5)
    with torch.no_grad():
        entry.theta.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        (layer(torch.ones(1, 1)) - 1).square().sum().backward()
        optimizer.step()
    assert layer.weight.item() == pytest.approx(1, abs=1e-3)


def test_installing_changes_no_weight_and_keeps_the_parameter() -> None:
    layer = nn.Linear(5, 3)
    before, parameter = layer.weight.detach().clone(), layer.weight
    (entry,) = install([("l", layer)], threshold=0.3)
    assert entry.theta is parameter
    assert torch.allclose(layer.weight, before, atol=1e-6)
    assert torch.allclose(entry.theta.abs(), before.abs() + 0.3, atol=1e-6)
    assert "parametrizations.weight.0.threshold" in layer.state_dict()


def test_a_step_is_one_step_of_ista() -> None:
    torch.manual_seed(0)
    theta = torch.randn(4000, dtype=torch.float64)
    d, growth, lr = 0.2, 0.03, 0.05
    gradient = torch.randn_like(theta)
    w = shrink(theta, d)
    moved = theta - lr * gradient
    alive = (theta.abs() > d) & (moved.abs() > d) & (theta.sign() == moved.sign())
    assert alive.sum() > 1000
    assert torch.allclose(shrink(moved, d + growth)[alive], shrink(w - lr * gradient, growth)[alive], atol=1e-12)


def solve(*, momentum: float = 0.0, decay: str = "off", weight_decay: float = 0.0, final: float = 12.0):
    """Prune the weights of a linear regression; returns its matrix, its right-hand side, W, the pruner."""
    generator, lr, steps = torch.Generator().manual_seed(1), 0.3, 2000
    a = torch.randn(80, 40, generator=generator, dtype=torch.float64) / 80**0.5
    b = torch.randn(80, 1, generator=generator, dtype=torch.float64)
    layer = nn.Linear(40, 1, bias=False, dtype=torch.float64)
    pruner = LATSConfig(threshold=final, decay=decay).build(nn.Sequential(layer))
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    pruner.plan([lr] * steps, optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (layer(a) - b).square().sum()).backward()
        pruner.before_step(optimizer)
        optimizer.step()
        pruner.after_step(optimizer)
    return a, b, layer.weight.detach()[0], pruner


def residual(a, b, w, l1: float, l2: float = 0.0) -> float:
    """How far w is from solving  0.5 |a w - b|^2 + l1 |w|_1 + 0.5 l2 |w|^2 : its largest subgradient violation."""
    gradient = a.T @ (a @ w - b[:, 0]) + l2 * w
    dead = (gradient.abs() - l1).clamp(min=0)
    return float(torch.where(w == 0, dead, (gradient + l1 * w.sign()).abs()).max())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_fixed_point_is_the_lasso_of_lambda_with_momentum(momentum: float) -> None:
    a, b, w, pruner = solve(momentum=momentum)
    mu = 12.0 / (0.3 * 2000)
    assert pruner.l1 == pytest.approx(mu * (1 - momentum), rel=1e-9)
    assert residual(a, b, w, pruner.l1) < 1e-8
    if momentum:
        assert residual(a, b, w, mu) > 1e-3  # without the factor of the momentum


def test_decay_of_the_latents_is_a_growing_l1_term() -> None:
    a, b, w, pruner = solve(decay="latent", weight_decay=1e-3, final=6.0)
    scheduled = 6.0 / (0.3 * 2000)
    assert pruner.l1 == pytest.approx(scheduled + 1e-3 * 6.0, rel=1e-9)
    assert residual(a, b, w, pruner.l1, l2=1e-3) < 1e-4
    assert residual(a, b, w, scheduled, l2=1e-3) > 3e-3


def test_decay_of_the_weights_gives_the_elastic_net_and_off_none() -> None:
    for decay, l2 in (("effective", 0.05), ("off", 0.0)):
        a, b, w, pruner = solve(decay=decay, weight_decay=0.05, momentum=0.9)
        assert pruner.l1 == pytest.approx(0.1 * 12.0 / (0.3 * 2000), rel=1e-9)
        assert residual(a, b, w, pruner.l1, l2=l2) < 1e-8


def test_decoupled_decay_acts_on_the_weights_too() -> None:
    """AdamW on two thresholded weights beside plain ones that decay by hand."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False, dtype=torch.float64)
    theta = layer.weight.detach().clone()
    for decay, kept in (
        ("effective", lambda t, d: shrink(t, d)),
        ("off", lambda t, d: 0 * t),
        ("latent", lambda t, d: t),
    ):
        mine, twin = copy.deepcopy(layer), nn.Parameter(theta.clone())
        pruner = LATSConfig(threshold=0.2, decay=decay).build(nn.Sequential(mine))
        optimizer = torch.optim.AdamW(mine.parameters(), lr=0.01, weight_decay=0.5)
        plain = torch.optim.AdamW([twin], lr=0.01, weight_decay=0.0)
        pruner.plan([0.01] * 20, optimizer)
        for _ in range(20):
            gradient = torch.randn_like(theta)
            d = pruner.schedule.threshold
            mine.parametrizations.weight.original.grad, twin.grad = gradient.clone(), gradient.clone()
            pruner.before_step(optimizer)
            optimizer.step()
            pruner.after_step(optimizer)
            decayed = 0.01 * 0.5 * kept(twin.detach().clone(), d)
            plain.step()
            twin.data -= decayed
        assert torch.allclose(mine.parametrizations.weight.original, twin, atol=1e-12), decay
        assert pruner.l1 is None and "AdamW" in pruner.l1_missing


def test_a_frozen_zero_stays() -> None:
    rule = SoftThreshold(torch.zeros(3), threshold=0.5, maskable=True)
    theta = torch.tensor([0.2, 1.0, -1.0])
    rule.freeze(theta)
    assert rule(torch.tensor([9.0, 9.0, 0.1])).tolist() == [0.0, 8.5, 0.0]
    with pytest.raises(ValueError, match="no mask"):
        SoftThreshold(torch.zeros(3)).freeze(theta)


def test_baking_leaves_plain_layers_with_the_same_outputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))
    install([(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)], threshold=0.0)
    for entry in thresholded(model):
        entry.rule.threshold.fill_(0.1)
    x = torch.randn(8, 20)
    before, zeros = model(x), [int((e.weight == 0).sum()) for e in thresholded(model)]
    copied = bake(copy.deepcopy(model))
    assert torch.equal(copied(x), before)
    assert [int((m.weight == 0).sum()) for m in copied if isinstance(m, nn.Linear)] == zeros and min(zeros) > 0
    assert not list(thresholded(copied)) and sorted(copied.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert type(copied[0]) is nn.Linear
    assert torch.equal(model(x), before) and len(list(thresholded(model))) == 2  # the original is untouched
