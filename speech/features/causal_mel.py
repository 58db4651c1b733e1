"""What a front end may know while a sound goes by: frames that end now, and a peak that only the past has set.

Both the batched front end and the streaming one are made of these functions: a model is trained on what it will hear.

    frame t     samples [(t+1) hop - win, (t+1) hop), zeros before the first sample; T = floor(n / hop)
    peak        p[t] = max(max_m L[t, m], p[t-1] - fall, silence + range)          p[-1] = silence + range
    level       x[t, m] = clip((L[t, m] - p[t]) / range + 1, 0, 1)

L is in dB. The peak rises at once and falls slowly, so the quiet end of a word stays quiet. It never falls to where
the range would reach below digital silence, which is therefore always 0.
"""

import torch
from torch import Tensor


def history(win: int, hop: int) -> int:
    """Samples before the first hop that its frame covers."""
    return max(win - hop, 0)


def frames_so_far(samples: Tensor, win: int, hop: int) -> Tensor:
    """`history` samples and n after them [..., history + n] -> complete frames [..., T, win], T = floor(n / hop)."""
    span = history(win, hop) + hop
    if samples.shape[-1] < span:
        return samples.new_empty(*samples.shape[:-1], 0, win)
    return samples.unfold(-1, span, hop)[..., span - win :]


def follow_peak(level_db: Tensor, peak_db: Tensor | None, *, fall_db: float, lowest_db: float) -> tuple[Tensor, Tensor]:
    """Level [T, ..., N] in dB -> (peak of each step [T, ...], last peak [...]), from the peak before (None: lowest)."""
    loudest = level_db.amax(-1)
    peak = torch.full_like(level_db[..., 0].sum(0), lowest_db) if peak_db is None else peak_db
    peaks = torch.empty_like(loudest)
    for t, now in enumerate(loudest.unbind(0)):
        peak = torch.maximum(now, peak - fall_db).clamp(min=lowest_db)
        peaks[t] = peak
    return peaks, peak


def scale_to_peak(level_db: Tensor, peaks_db: Tensor, range_db: float) -> Tensor:
    """Map `range_db` below the peak of each step to [0, 1]: [T, ..., N] and [T, ...] in dB -> [T, ..., N]."""
    return ((level_db - peaks_db[..., None]) / range_db + 1).clamp(0, 1)
