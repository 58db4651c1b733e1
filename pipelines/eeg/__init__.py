"""Training, evaluation, report and export of models of EEG."""
