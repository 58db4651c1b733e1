"""SpikeSCR, and how a batch becomes class probabilities."""
