"""Trials (sentence-level EEG recordings) in memory, their tokenizer and their batches."""
