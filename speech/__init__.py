"""Keyword recognition from audio: sources, front end, SpikeSCR, training."""
