"""EEG with a planted signal: ZuCo files, recordings, and the synthetic recovery test of CET-MAE."""
