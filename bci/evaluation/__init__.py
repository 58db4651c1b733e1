"""Is text decoded from EEG? Metrics, controls, permutation tests and their calibration."""
