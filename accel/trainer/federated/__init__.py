"""Federated training as numbers: splits, weighted averages, the cost of a round."""
