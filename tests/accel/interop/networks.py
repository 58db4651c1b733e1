"""Networks whose every population fires, for the exits."""

import torch
from torch import Tensor, nn

from spikeloom.accel.export.program import export
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import LIF, ParametricLIF, integrate_and_fire

Q = LIFParameters(tau=2.0, decay_input=False, threshold=0.5)
P = LIFParameters(tau=3.0, threshold=0.3, v_reset=-0.1, detach_reset=False)


class Everything(nn.Module):
    """What both formats express: x [T, B, 2, 8, 8] -> logits [B, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.lif1 = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), LIF(Q)
        self.grouped, self.lif2 = nn.Conv2d(8, 8, 3, padding=1, groups=4), LIF(P)
        self.pool, self.own_norm = nn.AvgPool2d(2), nn.BatchNorm2d(8)
        self.learned = ParametricLIF(LIFParameters(tau=2.7, threshold=0.2))
        self.pointwise, self.integrate = nn.Conv2d(8, 8, 1), integrate_and_fire(0.8)
        self.dense, self.norm1, self.lif3 = nn.Linear(128, 12, bias=False), nn.BatchNorm1d(12), LIF(Q)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape[:2]
        a, _ = self.lif1(self.norm(self.conv(x.flatten(0, 1))).unflatten(0, shape))
        b, _ = self.lif2(self.grouped(a.flatten(0, 1)).unflatten(0, shape))
        y = self.own_norm(self.pool(a.flatten(0, 1)) + 0.5 * self.pool(b.flatten(0, 1)))
        c, _ = self.learned(y.unflatten(0, shape))
        d, _ = self.integrate((self.pointwise(c.flatten(0, 1)) + y).unflatten(0, shape))
        e, _ = self.lif3(self.norm1(self.dense(d.flatten(2).flatten(0, 1))).unflatten(0, shape))
        return self.head(e.mean(0))


def everything() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = Everything()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.data.uniform_(1, 2)
            module.bias.data.uniform_(0, 0.5)
            module.running_var.uniform_(0.3, 1)
    return model.eval(), torch.rand(7, 5, 2, 8, 8) * 2


def exported(model: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    return export(model, [x], name="test", source={}, strict=False).program
