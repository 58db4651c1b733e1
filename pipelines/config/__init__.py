"""The typed shape of every configuration, and chips and GPUs by name."""
