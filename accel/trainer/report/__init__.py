"""Sections of a report about the trainer chip. Numbers come in finished."""
