"""Learning rules made for hardware: soft-threshold pruning and binary-stochastic learning."""
