"""Pages and console tables about runs: training, distillation, pruning, seeds, sweeps."""
