"""What counts as a word, in any script: the keys of sentences and the tokens of metrics.

Latin text: words are what stands between spaces; keys are lower case, `[a-z0-9]` only (`bci.zuco.text.normalise`).
Other scripts keep their letters in the key (NFKC, case folded). Chinese, Japanese, Thai, Lao, Khmer and Burmese put no
spaces between words: there every character is a token. What this module does not do: stem, or segment words.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from spikeloom.bci.zuco.text import normalise

# Scripts without spaces between words: Thai and Lao, Burmese, Khmer, kana, Han, with their extensions.
_UNSPACED = re.compile(
    "[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003134f][\u0300-\u036f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u3099\u309a]*"
)
_WORD = re.compile(r"\w+")
LATIN = "each word between spaces, case and punctuation kept"
UNSPACED = "each character of scripts without spaces, else each word between spaces; case and punctuation kept"


@lru_cache(maxsize=1 << 16)
def key_of(text: str) -> str:
    """What two texts share when they are the same sentence: letters and digits, without case and punctuation."""
    if _is_latin(text):
        return normalise(text)
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(word for word in _WORD.findall(spaced(folded)) if any(c.isalnum() for c in word))


@lru_cache(maxsize=1 << 16)
def spaced(text: str) -> str:
    """The text with spaces around every character of a script that has none between words."""
    return _UNSPACED.sub(lambda found: f" {found[0]} ", text) if not text.isascii() else text


def n_words(text: str) -> int:
    """Tokens of a text, at least 1."""
    return max(1, len(spaced(text).split()))


def definition(texts: Sequence[str]) -> str:
    """What the tokens of these texts are, in words."""
    return UNSPACED if any(_UNSPACED.search(text) for text in texts if not text.isascii()) else LATIN


def _is_latin(text: str) -> bool:
    if text.isascii():
        return True
    letters = {c for c in text if c.isalpha() and not c.isascii()}
    return all(unicodedata.name(c, "").startswith(("LATIN", "MODIFIER", "MASCULINE", "FEMININE")) for c in letters)
