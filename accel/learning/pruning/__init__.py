"""Pruning rules and their schedules: LATS, linear thresholds, magnitude, at initialisation."""
