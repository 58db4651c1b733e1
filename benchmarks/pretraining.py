"""`spikeloom bench pretrain`: one pre-training step of CET-MAE at the published size, on random EEG and text."""

import torch

from spikeloom.bci.models.cet_mae import CETMAEConfig
from spikeloom.bci.models.pretraining import OptimisationConfig, PretrainingBatch, PretrainingConfig
from spikeloom.benchmarks.measure import apart, forget_peak, median_ms, peak_mb

STEPS, BATCH, VOCABULARY = 58, 32, 50265


def print_pretraining(repeats: int) -> None:
    """Masking, forward, losses, backward and AdamW; the BART text encoder is random here, and frozen as published."""
    ms, mb = apart(pretraining_step, max(1, repeats // 10))
    print(f"CET-MAE pre-training step, EEG {STEPS} x {BATCH} x 840, 6 + 1 layers, text width 1024, 75 % masked, "
          f"{torch.get_num_threads()} threads: {ms / 1e3:.2f} s, {mb:.0f} MB above the imports")  # fmt: skip


def pretraining_step(repeats: int, samples: int = BATCH) -> tuple[float, float]:
    """Median milliseconds of a step of `samples`, and MB above what the process held before the model."""
    before = forget_peak()
    torch.manual_seed(0)
    model = CETMAEConfig(freeze_text=True).build(VOCABULARY).train()
    losses, optimisation = PretrainingConfig().build(), OptimisationConfig().build(model, 1000)
    ids = torch.randint(4, VOCABULARY - 1, (STEPS, samples))
    batch = PretrainingBatch(
        torch.randn(STEPS, samples, 840), torch.ones(STEPS, samples, dtype=torch.bool), ids, torch.arange(samples)
    )
    return median_ms(lambda: optimisation.step(losses(model, batch).total), repeats), peak_mb() - before
