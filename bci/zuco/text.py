"""Sentences as text: the key that says two rows show the same sentence, and the two misprints that reach a tokenizer.

What this module does not do: repair the other known defects of the stimuli. They were on the screen; `normalise` makes
most of them equal to their correct form, which is what splits need.
"""

import re

_MISPRINTS = {"emp11111ty": "empty", "film.1": "film."}
_NOT_ALPHANUMERIC = re.compile("[^a-z0-9]+")


def normalise(text: str) -> str:
    """The key of a sentence: lower case, every run of characters outside [a-z0-9] one space, stripped."""
    return _NOT_ALPHANUMERIC.sub(" ", text.lower()).strip()


def corrected(text: str) -> str:
    """The sentence as a tokenizer should see it: the misprints `emp11111ty` and `film.1` repaired, all else kept."""
    for misprint, meant in _MISPRINTS.items():
        text = text.replace(misprint, meant)
    return text


def is_punctuation(token: str) -> bool:
    """Whether a token has no letter and no digit of any script, such as a lone dash."""
    return not any(character.isalnum() for character in token)
