"""Charts, tables and pages about EEG recordings and their decoders."""
