"""Spiking vision transformers, their parts and published variants, and the baselines."""
