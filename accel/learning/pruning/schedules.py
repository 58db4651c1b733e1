"""When the threshold grows. Growing by mu eta_n in a step with learning rate eta_n gives one L1 strength:

    d_{n+1} = d_n + mu_n eta_n,      mu_n = c h(n / N),      h(x) = b^x  (b = 1: LATS, b < 1: most growth comes early)

`IntegratedLR` sums the learning rates that were really used; warm-up, restarts, a floor and skipped steps need no
special case. The closed forms below hold for one case only, a cosine to zero from the first step, and are here to check
it and to name what others do. Pure numbers: no tensors, no optimiser.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple


def s_lats(x: float) -> float:
    """d/D at x = n/N under a cosine per step: x + sin(pi x)/pi."""
    return x + math.sin(math.pi * x) / math.pi


def lats_epochs(n: int, epochs: int) -> float:
    """d/D at the start of epoch n of `epochs` under a cosine that is constant within an epoch."""
    wave = math.sin(math.pi * (n - 0.5) / epochs) / math.sin(math.pi / (2 * epochs))
    return (1 + 2 * n + wave) / (2 * (epochs + 1))


def geometric_homotopy(x: float, b: float) -> float:
    """d/D at x under a cosine per step and mu proportional to b^x, 0 < b <= 1; b = 1 is `s_lats`."""
    check_base(b)
    if b == 1:
        return s_lats(x)
    log_b, pi = math.log(b), math.pi
    grown = math.expm1(x * log_b)  # b^x - 1, exact near b = 1
    turn = log_b * math.cos(pi * x) + pi * math.sin(pi * x)
    above = pi**2 * grown + (grown - 1) * log_b**2 + (grown + 1) * log_b * turn
    return above / (pi**2 * math.expm1(log_b) - 2 * log_b**2)


def linear(x: float) -> float:
    """d/D of a threshold that ignores the learning rate; under a cosine its mu grows as 1/(1 + cos pi x)."""
    return x


def sine(x: float) -> float:
    """d/D of the other common rule that ignores the learning rate; under a cosine its mu grows as tan(pi x/2)."""
    return (1 - math.cos(math.pi * x)) / 2


def released_gmp(epoch: int, first: int, last: int, sparsity: float) -> float:
    """Share of zeros in an epoch of GMP as released: it starts at 0 and ends just below `sparsity`."""
    return sparsity - sparsity * (1 - (epoch - first) / (last - first + 1)) ** 3


def check_base(b: float) -> None:
    """Raise ValueError for a base of the homotopy outside (0, 1]."""
    if not 0 < b <= 1:
        raise ValueError(f"the base of the homotopy must be in (0, 1], got {b}; use 1 for a constant L1 coefficient")


def l1_coefficient(
    mu: float, *, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0, threshold: float = 0.0
) -> float:
    """lambda(t) = mu (1 - momentum)/(1 - dampening) + weight_decay * threshold, for SGD.

    With buf = momentum buf + (1 - dampening) g, a latent weight keeps pace with d only where |g| is that large. Give
    `weight_decay` where the decay acts on the latent weights, theta = W + d sign W: its part d sign W is an L1 term.
    """
    return mu * (1 - momentum) / (1 - dampening) + weight_decay * threshold


def mu_of_l1(l1: float, *, momentum: float = 0.0, dampening: float = 0.0) -> float:
    """Growth of the threshold per learning rate that gives the L1 coefficient `l1` (without the decay's part)."""
    return l1 * (1 - dampening) / (1 - momentum)


class PruneState(NamedTuple):
    """Where a schedule stands: threshold d, growth mu of the last step, sum of learning rates and steps so far."""

    threshold: float
    mu: float
    lr_sum: float
    step: int


class IntegratedLR:
    """The threshold as an integral of the learning rate over a planned horizon.

    plan: learning rate of every step of the horizon, as it is meant to be. Give `final_threshold` D, and then
    c = D / sum(h eta) over the plan; or `mu`, the growth per learning rate, and then c = mu. Where the learning rates
    differ from the plan, c stays and the threshold ends elsewhere. `aim` changes the target on the way. The first
    `start_step` steps of the plan add nothing. Steps past the horizon add nothing.
    """

    def __init__(
        self,
        plan: Sequence[float],
        *,
        final_threshold: float | None = None,
        mu: float | None = None,
        base: float = 1.0,
        start_step: int = 0,
    ) -> None:
        check_base(base)
        if not 0 <= start_step < len(plan):
            raise ValueError(f"start_step={start_step} is none of the {len(plan)} planned steps; use 0 for the first")
        if (final_threshold is None) == (mu is None):
            raise ValueError("give either the final threshold or the growth per learning rate")
        self.base, self.start_step, self.horizon = base, start_step, len(plan)
        self.remaining = [0.0] * (len(plan) + 1)  # sum of h eta from step n to the end
        for n in reversed(range(len(plan))):
            self.remaining[n] = self.remaining[n + 1] + self.weight(n) * plan[n]
        if self.remaining[0] <= 0:
            raise ValueError("the planned learning rates are all 0, so the threshold cannot grow; train with lr > 0")
        self.c = final_threshold / self.remaining[0] if final_threshold is not None else mu or 0.0
        self.state = PruneState(0.0, 0.0, 0.0, 0)

    def weight(self, n: int) -> float:
        """h of step n: b^x with x the share of the horizon after `start_step`, 0 outside."""
        if not self.start_step <= n < self.horizon:
            return 0.0
        return float(self.base ** ((n - self.start_step) / (self.horizon - self.start_step)))

    @property
    def threshold(self) -> float:
        return self.state.threshold

    @property
    def finished(self) -> bool:
        """Whether the horizon is over."""
        return self.state.step >= self.horizon

    def step(self, lr: float, stepped: bool = True) -> float:
        """Count one optimiser step at learning rate `lr` and return the new threshold.

        `stepped=False`: the optimiser did not move (a gradient scaler met an infinity), so the threshold does not.
        """
        threshold, _, lr_sum, n = self.state
        mu = self.c * self.weight(n) if stepped else 0.0
        self.state = PruneState(threshold + mu * lr, mu, lr_sum + (lr if stepped else 0.0), n + 1)
        return self.state.threshold

    def aim(self, final_threshold: float) -> None:
        """Choose c so that the planned steps that are left end at `final_threshold`; a threshold never shrinks."""
        left = self.remaining[min(self.state.step, self.horizon)]
        if left > 0:
            self.c = max(0.0, final_threshold - self.state.threshold) / left

    def raise_to(self, threshold: float) -> None:
        """Lift the threshold to at least `threshold` at once."""
        self.state = self.state._replace(threshold=max(self.state.threshold, threshold))

    def state_dict(self) -> dict[str, Any]:
        return {"c": self.c, "remaining": list(self.remaining), "state": list(self.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if len(state["remaining"]) != len(self.remaining):
            raise ValueError(
                f"the checkpoint was made for {len(state['remaining']) - 1} steps of pruning, this run plans "
                f"{self.horizon}; resume with the epochs it was started with, or add overwrite=true"
            )
        self.c, self.remaining, self.state = state["c"], list(state["remaining"]), PruneState(*state["state"])
