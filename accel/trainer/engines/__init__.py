"""Functional engines: what the chip's FP, BP and WG engines compute, on real tensors, in the chip's own arithmetic.

`arithmetic` rounds and multiplies as the arrays do, `units` are neurons, normalisation and Adam, `rules` lays layers
on the engines, `program` runs an exported program through them forwards and backwards, `activity` counts what was not
zero. Costs are elsewhere (`spikeloom.accel.trainer.schedule.simulator`); this room needs torch, that one does not.
"""
