"""A decoder that listens: windows of EEG as they arrive, features by the recipe, text out.

    eeg [105, T] -> pieces -> mean band amplitudes [n, 840] -> z-scored tokens, the whole span last -> decode(tokens)

`SlidingDecoder` has no eye tracker: it cuts a window into equal pieces in place of fixations. `SentenceDecoder`
is given when a sentence was on the screen and where the eyes rested (a recording with an events table), and decodes
when the sentence goes off. The band filters are zero-phase: FILTER_CONTEXT samples on either side of a span are read
but not decoded, and text comes that much later. Pieces with artefacts are left out; with none left there is no text.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikeloom.accel.common.files import read_csv
from spikeloom.bci.raw.bids_corpus import LONGEST_S
from spikeloom.bci.raw.features import REJECT_UV, piece_amplitudes
from spikeloom.bci.streaming.replay import FILTER_CONTEXT, Window
from spikeloom.bci.zuco.records import SAMPLING_HZ
from spikeloom.bci.zuco.samples import SamplesConfig, standardise

Decode = Callable[[Tensor, Tensor], str]  # tokens [L, 1, 840], mask [L, 1] bool -> text


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """start_s, end_s: the span that was decoded; n_pieces: tokens but the last; n_rejected: pieces with artefacts;
    text: None where nothing was left to decode. window: the call that completed the span, from 0."""

    start_s: float
    end_s: float
    n_pieces: int
    n_rejected: int
    text: str | None
    window: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Span:
    """A sentence on the screen, samples at 500 Hz: on, off, and the fixations in it `[n, 2]` (first sample, end)."""

    on: int
    off: int
    fixations: np.ndarray


def tokens_of(
    eeg_uv: np.ndarray, pieces: np.ndarray, span: tuple[int, int], samples: SamplesConfig, reject_uv: float = REJECT_UV
) -> Tensor | None:
    """Tokens `[L, 1, 840]` of `eeg_uv` `[105, T]`: clean pieces in order, cut to what a sample holds, then the span.

    Where the span holds an artefact its token is the mean of the clean pieces. None where no piece is clean.
    """
    found = piece_amplitudes(eeg_uv, np.concatenate((pieces, [span])), reject_uv=reject_uv)
    clean = found[:-1][~np.isnan(found[:-1]).any(axis=1)]
    if not len(clean):
        return None
    clean = clean[: samples.max_length - samples.sentence_token]
    whole = clean.mean(axis=0) if np.isnan(found[-1]).any() else found[-1]
    rows = np.concatenate((clean, whole[None])) if samples.sentence_token else clean
    return torch.from_numpy(standardise(rows).astype(np.float32))[:, None]


class _Reader:
    def __init__(
        self, decode: Decode, samples: SamplesConfig, on_text: Callable[[Decoded], object], reject_uv: float
    ) -> None:
        self.decode, self.samples, self.on_text, self.reject_uv = decode, samples, on_text, reject_uv
        self.decoded: list[Decoded] = []
        self.n_windows = 0

    def read(self, eeg_uv: np.ndarray, pieces: np.ndarray, span: tuple[int, int], start: int) -> None:
        """Decode a span of `eeg_uv`, whose first sample is sample `start` of the recording."""
        tokens = tokens_of(eeg_uv, pieces, span, self.samples, self.reject_uv) if len(pieces) else None
        text = None if tokens is None else self.decode(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))
        used = 0 if tokens is None else len(tokens) - self.samples.sentence_token
        self.decoded.append(
            Decoded(
                start_s=(start + span[0]) / SAMPLING_HZ,
                end_s=(start + span[1]) / SAMPLING_HZ,
                n_pieces=used,
                n_rejected=len(pieces) - used,
                text=text,
                window=self.n_windows - 1,
            )
        )
        self.on_text(self.decoded[-1])


class SlidingDecoder(_Reader):
    """Decodes every window it is given, in equal pieces of `piece_s`. For windows of the net in volts, 500 Hz."""

    def __init__(
        self,
        decode: Decode,
        samples: SamplesConfig,
        piece_s: float,
        on_text: Callable[[Decoded], object],
        reject_uv: float = REJECT_UV,
    ) -> None:
        super().__init__(decode, samples, on_text, reject_uv)
        self.piece = round(piece_s * SAMPLING_HZ)
        if self.piece < 10:
            raise ValueError(f"piece_s={piece_s} is shorter than 20 ms; use 0.25, about a fixation")

    def __call__(self, window: Window) -> None:
        self.n_windows += 1
        n_samples = window.data.shape[1]
        first, end = FILTER_CONTEXT, n_samples - FILTER_CONTEXT
        starts = np.arange(first, end - self.piece + 1, self.piece)
        if not len(starts):
            raise ValueError(
                f"a window of {n_samples / SAMPLING_HZ:g} s leaves no piece of {self.piece / SAMPLING_HZ:g} s between "
                f"its filter context of {FILTER_CONTEXT} samples a side; use window_s=4"
            )
        self.read(1e6 * window.data, np.stack((starts, starts + self.piece), axis=1), (first, end), window.start)


class SentenceDecoder(_Reader):
    """Decodes each sentence once it has ended and its filter context has arrived; its windows follow without a gap."""

    def __init__(
        self,
        decode: Decode,
        samples: SamplesConfig,
        spans: Sequence[Span],
        on_text: Callable[[Decoded], object],
        reject_uv: float = REJECT_UV,
    ) -> None:
        super().__init__(decode, samples, on_text, reject_uv)
        self.waiting = sorted(spans, key=lambda span: span.off)
        self.buffer, self.first = np.zeros((0, 0)), 0  # microvolts from sample `first` of the recording

    def __call__(self, window: Window) -> None:
        self.n_windows += 1
        fresh = 1e6 * window.data
        self.buffer = np.concatenate((self.buffer, fresh), axis=1) if self.buffer.size else fresh
        arrived = window.start + fresh.shape[1]
        while self.waiting and self.waiting[0].off + FILTER_CONTEXT <= arrived:
            span = self.waiting.pop(0)
            start = max(self.first, span.on - FILTER_CONTEXT)
            piece = self.buffer[:, start - self.first : span.off + FILTER_CONTEXT - self.first]
            self.read(piece, span.fixations - start, (span.on - start, span.off - start), start)
        needed = min((span.on for span in self.waiting), default=arrived) - FILTER_CONTEXT
        keep = min(max(needed, self.first), arrived)
        self.buffer, self.first = self.buffer[:, keep - self.first :], keep


def spans_beside(recording: Path) -> list[Span]:
    """Sentences and fixations in the `_events.tsv` beside a recording of a BIDS data set; none where there is none.

    Raises ValueError naming the file when its table is not as `spikeloom data bids` writes it.
    """
    path = recording.with_name(f"{recording.stem.removesuffix('_eeg')}_events.tsv")
    if not recording.stem.endswith("_eeg") or not path.is_file():
        return []
    rows = read_csv(path, "export it again", "\t", csv.QUOTE_NONE)
    try:
        timed = [
            (row["trial_type"], row["sentence_id"], round(float(row["onset"]) * SAMPLING_HZ),
             round(float(row["duration"]) * SAMPLING_HZ))
            for row in rows
            if row.get("trial_type") in ("sentence", "fixation")
        ]  # fmt: skip
        if not all(on >= 0 and length > 0 and on + length <= LONGEST_S * SAMPLING_HZ for _, _, on, length in timed):
            raise ValueError("an onset or a duration is negative, too short or beyond 30 days")
    except (KeyError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} has no sentences and fixations as expected ({error}); export it again") from error
    spans = []
    for kind, sentence, on, length in timed:
        if kind == "sentence":
            looks = [(a, a + n) for k, s, a, n in timed if k == "fixation" and s == sentence and on <= a < on + length]
            spans.append(Span(on=on, off=on + length, fixations=np.array(looks, dtype=np.int64).reshape(-1, 2)))
    return spans
