"""Continuous EEG recordings and eye tracking, read through MNE."""
