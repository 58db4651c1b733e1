"""From fixations to words and to the gaze measures of reading: which word the eyes rested on, which fixations count.

The recipe is that of ZuCo: a fixation lasts at least 100 ms, belongs to the word within whose bounds its mean position
lies, and a measure is a set of places in the sentence's list of fixations on words. What this module does not do: find
fixations in gaze samples; the tracker did that.
"""

import numpy as np

SHORTEST_MS = 100.0
LINE_END_PX = 3.0  # how far the first and the last word of a line reach beyond their ink
OFF_WORD = -1


def adjusted_bounds(bounds_px: np.ndarray) -> np.ndarray:
    """Word bounds without gaps: `[W, 4]` (left, top, right, bottom) to the same, words in reading order.

    The gap between two words of a line is split at its middle; the ends of a line reach out by LINE_END_PX.
    """
    bounds = np.array(bounds_px, dtype=np.float64)
    if bounds.ndim != 2 or bounds.shape[1] != 4:
        raise ValueError(f"word bounds have shape {bounds.shape}; use [words, 4]: left, top, right, bottom")
    left, right = bounds_px[:, 0], bounds_px[:, 2]
    same_line = left[1:] > left[:-1]  # the eyes jump back to the left where a line begins
    middle = (right[:-1] + left[1:]) / 2
    bounds[1:, 0] = np.where(same_line, middle, left[1:] - LINE_END_PX)
    bounds[:-1, 2] = np.where(same_line, middle, right[:-1] + LINE_END_PX)
    bounds[:1, 0] -= LINE_END_PX
    bounds[-1:, 2] += LINE_END_PX
    return bounds


def words_fixated(x_px: np.ndarray, y_px: np.ndarray, bounds_px: np.ndarray) -> np.ndarray:
    """Index of the word under each position, int64 `[n]`, OFF_WORD where none; bounds `[W, 4]` as published."""
    left, top, right, bottom = (edge[None] for edge in adjusted_bounds(bounds_px).T)
    x, y = np.asarray(x_px)[:, None], np.asarray(y_px)[:, None]
    inside = (left <= x) & (x < right) & (top <= y) & (y <= bottom)  # [n, W]
    return np.where(inside.any(axis=1), inside.argmax(axis=1), OFF_WORD)


def measure_fixations(words: np.ndarray, word: int) -> dict[str, np.ndarray]:
    """The fixations each gaze measure of `word` takes: measure -> 0-based places in the list `words`.

    words: int `[n]`, the word of every fixation on words, in order. FFD: the first fixation. TRT: all. GD: the first
    run of consecutive places, so fixations off the words, which are not in the list, do not end it. GPT: from the
    first fixation until the eyes move right of the word. SFD: only where there is exactly one. {} where unfixated.
    """
    own = np.flatnonzero(words == word)
    if not len(own):
        return {}
    first = own[0]
    run = own[: 1 + int(np.cumprod(np.diff(own) == 1).sum())]
    beyond = np.flatnonzero(words[first:] > word)
    stop = first + beyond[0] if len(beyond) else len(words)
    measures = {"FFD": own[:1], "TRT": own, "GD": run, "GPT": np.arange(first, stop)}
    return measures | ({"SFD": own} if len(own) == 1 else {})
