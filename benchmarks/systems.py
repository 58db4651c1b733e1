"""`spikeloom bench systems`: the training step of every kind of network: exported, computed by the engines, priced.

Networks are the small ones of `spikeloom engines` and `federate`, with random weights and digits, synthetic clips or
synthetic EEG. One line each: what the export owns, energy of a step of 16 samples, and whether the engines in FP32
compute what PyTorch does, with the largest relative difference of a gradient (of those above 1e-3: a bias in front of a
norm has none but rounding).
"""

import torch

from spikeloom.accel.export.program import Exported, export
from spikeloom.accel.trainer.engines.arithmetic import FP32
from spikeloom.accel.trainer.engines.program import Engines
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.pipelines.config.chips import load_chip
from spikeloom.pipelines.training.toy_datasets import SmallTask
from spikeloom.pipelines.training.toy_trials import toy_problem

SYSTEMS = (
    ("digits", "spikingformer"), ("digits", "cml"), ("digits", "qkformer"), ("digits", "ms_qkformer"),
    ("digits", "sew_resnet18"), ("digits", "spiking_resnet18"), ("synthetic", "spikescr_1l_8_128"),
    ("trials", "cet_mae"), ("trials", "e2t_ptr"),
)  # fmt: skip
CHIPS = ("neuromc", "cacti28", "memristor")


def print_systems() -> None:
    """One block for each system."""
    for name, model in SYSTEMS:
        task = toy_problem(name, model, limit=32)
        exported = _exported(task, 16)
        energies = (simulate(exported.workload, load_chip(chip)).energy_per_iteration_pj / 1e9 for chip in CHIPS)
        equal, difference = engines_in_fp32(task)
        print(
            f"{model}: {exported.balance}; mJ on {', '.join(CHIPS)}: {', '.join(f'{mj:.3g}' for mj in energies)}; "
            f"engines in FP32: outputs {'equal' if equal else 'differ'}, gradients within {difference:.1e}",
            flush=True,
        )


def engines_in_fp32(task: SmallTask, samples: int = 6) -> tuple[bool, float]:
    """Whether outputs are equal bit by bit, and the largest relative difference of a gradient from autograd's."""
    model = task.build(0)
    exported = _exported(task, samples, model)
    x, labels = task.encode(task.train.x[:samples]), task.train.labels[:samples]
    engines = Engines(exported.program, forward=FP32, learn_statistics=False)
    found = engines.forward(*(x if isinstance(x, tuple) else (x,)))
    model.train()
    expected = task.run(model, x)
    task.loss(expected, labels).backward()
    (gradient,) = torch.autograd.grad(task.loss(found.requires_grad_(), labels), found)
    gradients = engines.backward(gradient)
    differences = [
        float((gradients[name] - p.grad).norm() / p.grad.norm())
        for name, p in model.named_parameters()
        if p.grad is not None and p.grad.norm() > 1e-3
    ]
    return torch.equal(found.detach(), expected.detach()), max(differences)


def _exported(task: SmallTask, samples: int, model: torch.nn.Module | None = None) -> Exported:
    x = task.encode(task.train.x[:samples])
    batch = x if isinstance(x, tuple) else (x,)
    return export(model or task.build(0), [batch], name=task.model_name, source={}, axes=task.axes)
