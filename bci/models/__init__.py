"""CET-MAE, E2T-PTR and BART, the pretraining objective, and their configuration."""
