"""The multi-core neuromorphic trainer, simulated: what one training step costs in energy, cycles and bytes."""
