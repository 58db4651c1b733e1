"""`spikeloom bench pretrain`: one pre-training step of CET-MAE at the published size, on random EEG and text."""

import torch

from bci.cet_mae import CETMAEConfig
from bci.training import OptimisationConfig, PretrainingBatch, PretrainingConfig
from pipelines.benchmarks.measure import apart, forget_peak, median_ms, peak_mb

STEPS, BATCH, VOCABULARY = 58, 32, 50265


def print_pretraining(repeats: int) -> None:
    """Masking, forward, losses, backward and AdamW; the BART text encoder is random here, and frozen as published."""
    ms, mb = apart(pretraining_step, max(1, repeats // 10))
    print(f"CET-MAE pre-training step, EEG {STEPS} x {BATCH} x 840, 6 + 1 layers, text width 1024, 75 % masked, "
          f"{torch.get_num_threads()} threads: {ms / 1e3:.2f} s, {mb:.0f} MB above the imports")  # fmt: skip


def pretraining_step(repeats: int) -> tuple[float, float]:
    """Median milliseconds of a step, and MB above what the process held before the model."""
    before = forget_peak()
    torch.manual_seed(0)
    model = CETMAEConfig(freeze_text=True).build(VOCABULARY).train()
    losses, optimisation = PretrainingConfig().build(), OptimisationConfig().build(model, 1000)
    ids = torch.randint(4, VOCABULARY - 1, (STEPS, BATCH))
    batch = PretrainingBatch(
        torch.randn(STEPS, BATCH, 840), torch.ones(STEPS, BATCH, dtype=torch.bool), ids, torch.arange(BATCH)
    )
    return median_ms(lambda: optimisation.step(losses(model, batch).total), repeats), peak_mb() - before
