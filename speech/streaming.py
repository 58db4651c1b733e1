"""Keywords in a sound that goes by: causal log-mel frames, an onset gate, a SpikeSCR, a decision.

    frames      those of `LogMel` with causal=true, chunk by chunk
    gate        a word begins where the frame power stands `onset_db` above the least of the last `background_s`
    posterior   softmax of the logits of `SpikeSCR.stream`, started anew at every onset; 0 while the gate is shut
    score       mean posterior of the last `smoothing_ms` (Chen, Parada and Heigold, ICASSP 2014)
    detection   the highest score has reached `threshold` and has not been beaten for `settle_ms`; what led to it is
                then used up, and the spotter is deaf for `refractory_ms`

A score that only crosses a threshold belongs to the first sound of a word, which many words share; waiting for its peak
costs `settle_ms` and is what a clip's readout does.

Why the model starts anew at onsets: rotary positions count from the first frame and a neuron follows them, so step 300
is a place it was never trained on, and a state that has run through a minute of hum is another. A clip of the training
set begins shortly before its word; so does what the model hears here, level and position included. Between words it
does not run at all. A sound that does not end is cut where a training clip would end (`clip_s`) and heard anew. What
this gives up: words without a pause between them share a start, a word much quieter than its background is missed, and
in the first `background_s` every sound counts as a word, since silence is what the listener expects before it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from spikeloom.speech.features.causal_mel import follow_peak, history
from spikeloom.speech.features.log_mel import FLOOR_DB, LogMel, LogMelConfig
from spikeloom.speech.models.spikescr import SpikeSCR, SpikeSCRState

LOUD_FRAMES_MS = 30.0  # a click is shorter, a word longer


class CausalLogMelState(NamedTuple):
    """Samples that coming frames still cover [n], and the running peak in dB (None before the first frame)."""

    samples: Tensor
    peak_db: Tensor | None


class CausalLogMel:
    """The features of a causal `LogMel`, chunk by chunk: samples [n] and a state -> frames [T, n_mels] and a state."""

    def __init__(self, config: LogMelConfig) -> None:
        if not config.causal:
            raise ValueError(
                "these features look half a window ahead and cannot stream; train with features.causal=true"
            )
        self.config = config
        self.log_mel: LogMel = config.build()

    def init_state(self) -> CausalLogMelState:
        return CausalLogMelState(torch.zeros(history(self.config.win_length, self.config.hop)), None)

    def level(self, samples: Tensor, state: CausalLogMelState) -> tuple[Tensor, CausalLogMelState]:
        """Frames in dB, not yet scaled; the peak stays as it was."""
        heard = torch.cat((state.samples, samples))
        level_db = self.log_mel.level_so_far(heard)
        return level_db, state._replace(samples=heard[len(level_db) * self.config.hop :])

    def step(self, samples: Tensor, state: CausalLogMelState) -> tuple[Tensor, CausalLogMelState]:
        """Frames as the model takes them."""
        level_db, state = self.level(samples, state)
        features, peak_db = self.log_mel.scale_so_far(level_db, state.peak_db)
        return features, state._replace(peak_db=peak_db)


def level_difference_db(config: LogMelConfig, waveform: Tensor) -> Tensor:
    """Running peak minus the peak of the whole clip, in dB, for every causal frame of samples [n]: [T].

    Level scaling subtracts the peak: where this is -12, frames stand 12 dB higher than a clip known to its end would
    put them. It is 0 from the loudest frame on, less what the peak has fallen since.
    """
    front_end = CausalLogMel(config)
    level_db, _ = front_end.level(waveform, front_end.init_state())
    peaks_db, _ = follow_peak(level_db, None, fall_db=config.peak_fall_db, lowest_db=config.lowest_peak_db)
    return peaks_db - level_db.max()


@dataclass
class SpotterConfig:
    """When a `KeywordSpotter` listens and when it speaks; equations at the top of this module."""

    threshold: float = 0.4  # a causal posterior starts at chance: its mean over a word stays well below 1
    smoothing_ms: float = 400.0  # mean over the last posteriors
    settle_ms: float = 100.0  # for which the best score must stay unbeaten before it is reported
    refractory_ms: float = 300.0  # between two reports
    onset_db: float = 12.0  # frame power above the background at which a word starts
    background_s: float = 1.5  # over which the background level is estimated
    preroll_ms: float = 50.0  # what the model hears from before the loud frames of an onset
    hangover_ms: float = 250.0  # quiet that ends a word: longer than the closure of a stop

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie in (0, 1), got {self.threshold}; use 0.4")
        for name in ("smoothing_ms", "onset_db", "background_s", "hangover_ms"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}; leave it out for the default")
        for name in ("settle_ms", "refractory_ms", "preroll_ms"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}; use 0 for none")


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A keyword, the time at which it was recognised (end of that frame) and its score in [threshold, 1]."""

    keyword: str
    time_s: float
    confidence: float


class Word(NamedTuple):
    """The word being heard: the model's state, the running peak, its frames so far, the quiet ones at its end."""

    model: SpikeSCRState | None
    peak_db: Tensor | None
    steps: int
    quiet: int


class Peak(NamedTuple):
    """The highest score since the last detection, its class, and the frames for which it has stood."""

    score: float
    label: int
    age: int


class DecisionState(NamedTuple):
    """What a decision remembers of the posteriors so far."""

    posteriors: Tensor  # of the last frames [<= smoothing, classes]
    peak: Peak
    deaf: int  # frames until the next detection is allowed
    quiet: int  # frames in a row without a posterior, up to the smoothing


class Decision:
    """Posteriors of one frame after another -> detections (score and detection of the equations above)."""

    def __init__(self, class_names: tuple[str, ...], config: SpotterConfig, hop_s: float) -> None:
        frames = lambda ms: round(ms / 1000 / hop_s)  # noqa: E731
        self.class_names, self.threshold, self.hop_s = class_names, config.threshold, hop_s
        self.smoothing, self.settle = max(1, frames(config.smoothing_ms)), frames(config.settle_ms)
        self.refractory = frames(config.refractory_ms)

    def init_state(self) -> DecisionState:
        return DecisionState(torch.empty(0, len(self.class_names)), Peak(0.0, 0, 0), 0, self.smoothing)

    def step(
        self, posterior: Tensor | None, state: DecisionState, frame: int
    ) -> tuple[Detection | None, DecisionState]:
        """Is there a keyword now? `posterior` [>= 1, classes] of new frames, the last of them number `frame`; None: the
        gate is shut."""
        if state.deaf:
            return None, state._replace(deaf=state.deaf - 1)
        if posterior is None:
            if state.quiet >= self.smoothing and state.peak.score < self.threshold:
                return None, state  # nothing is left that could become a detection
            posterior, quiet = torch.zeros(1, len(self.class_names)), state.quiet + 1
        else:
            quiet = 0
        posteriors = torch.cat((state.posteriors, posterior))[-self.smoothing :]
        # Divided by the whole window even while it fills: what was not heard yet speaks for no keyword.
        score, label = (posteriors.sum(0) / self.smoothing).max(0)
        peak = state.peak._replace(age=state.peak.age + 1)
        if float(score) > peak.score:
            peak = Peak(float(score), int(label), 0)
        state = DecisionState(posteriors, peak, 0, quiet)
        if peak.score < self.threshold or peak.age < self.settle:
            return None, state
        detection, state = self.standing(state, frame), state._replace(peak=Peak(0.0, 0, 0))
        if detection is None:
            return None, state
        return detection, state._replace(posteriors=posteriors[:0], deaf=self.refractory)

    def standing(self, state: DecisionState, frame: int) -> Detection | None:
        """What the highest score so far stands for, settled or not."""
        keyword = self.class_names[state.peak.label]
        if state.peak.score < self.threshold or not is_keyword(keyword):
            return None
        return Detection(keyword=keyword, time_s=frame * self.hop_s, confidence=state.peak.score)


def is_keyword(name: str) -> bool:
    """Whether a class is reported; those named `_so_` (`_silence_`, `_unknown_`) are not."""
    return not (name.startswith("_") and name.endswith("_"))


class SpotterState(NamedTuple):
    """Everything a spotter remembers; bounded in size."""

    front_end: CausalLogMelState
    frames: int  # heard so far
    power_db: tuple[float, ...]  # of the frames the background is taken from
    recent: Tensor  # the frames in dB that an onset reaches back to [<= preroll, n_mels]
    loud: int  # frames in a row that stood out
    word: Word | None
    decision: DecisionState


class KeywordSpotter:
    """`step(samples, state) -> (detections, state)`: a causal SpikeSCR and its front end, listening without an end.

    Classes named `_so_` (`_silence_`, `_unknown_`) win frames but are never reported. Raises ValueError for a model or
    features that look ahead.
    """

    def __init__(
        self, model: SpikeSCR, features: LogMelConfig, class_names: tuple[str, ...], config: SpotterConfig | None = None
    ) -> None:
        if not hasattr(model, "stream"):
            kind = getattr(model, "title", type(model).__name__)
            raise ValueError(f"a {kind} cannot stream; listen with a run of a SpikeSCR with model.causal=true")
        if not (model.config.causal and getattr(features, "causal", False)):
            raise ValueError(
                f"listening needs a model and features that do not look ahead; got model.causal={model.config.causal} "
                f"and features.causal={getattr(features, 'causal', 'none')}: "
                "train with model.causal=true features.causal=true"
            )
        config = config or SpotterConfig()
        self.model, self.config, self.class_names = model.eval(), config, class_names
        self.front_end = CausalLogMel(features)
        self.hop_s = features.hop / features.sample_rate_hz
        self.decision = Decision(class_names, config, self.hop_s)
        frames = lambda ms: round(ms / 1000 / self.hop_s)  # noqa: E731
        self.hangover, self.loud_frames = max(1, frames(config.hangover_ms)), max(1, frames(LOUD_FRAMES_MS))
        self.preroll = frames(config.preroll_ms) + self.loud_frames
        self.background, self.longest = max(1, frames(1000 * config.background_s)), frames(1000 * features.clip_s)

    def init_state(self) -> SpotterState:
        """Before the first sample: silence has gone by."""
        n_mels = self.front_end.config.n_mels
        silence = float(power_db(torch.full((n_mels,), FLOOR_DB)))
        return SpotterState(
            self.front_end.init_state(), 0, (silence,) * self.background, torch.empty(0, n_mels), 0, None,
            self.decision.init_state(),
        )  # fmt: skip

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Do once what the first word would have to wait for: kernels are compiled, buffers allocated."""
        features, _ = self.front_end.step(torch.zeros(self.front_end.config.win_length), self.front_end.init_state())
        self.model.stream(features[:, None], None)

    def step(self, samples: Tensor, state: SpotterState) -> tuple[list[Detection], SpotterState]:
        """The next samples [n], any number of them -> what was recognised in them. Chunks do not change the outcome."""
        found: list[Detection] = []
        decision, before = state.decision, state.frames
        posteriors, state = self.posteriors(samples, state)
        for i, posterior in enumerate(posteriors, 1):
            detection, decision = self.decision.step(posterior, decision, before + i)
            found += [detection] if detection else []
        return found, state._replace(decision=decision)

    @torch.inference_mode()
    def posteriors(self, samples: Tensor, state: SpotterState) -> tuple[list[Tensor | None], SpotterState]:
        """What the model says of the next samples [n], before any decision: for each new frame posteriors
        [>= 1, classes], or None while the gate is shut; and the state after them."""
        level_db, front_end = self.front_end.level(samples, state.front_end)
        state = state._replace(front_end=front_end)
        said: list[Tensor | None] = []
        waiting: list[Tensor] = []  # frames of one word that the gate has let through and the model has not heard
        model, peak_db = (state.word.model, state.word.peak_db) if state.word else (None, None)
        for frame, now_db in zip(level_db, power_db(level_db).tolist(), strict=True):
            heard, begins, state = self._gate(frame, now_db, state)
            if waiting and (begins or heard is None):
                said += self._hear(waiting, model, peak_db)[0]
                waiting = []
            if begins:
                model, peak_db = None, None
            if heard is None:
                said.append(None)
            else:
                waiting.append(heard)
        if waiting:
            posteriors, model, peak_db = self._hear(waiting, model, peak_db)
            said += posteriors
        if state.word:
            state = state._replace(word=state.word._replace(model=model, peak_db=peak_db))
        return said, state

    def _gate(self, frame: Tensor, now_db: float, state: SpotterState) -> tuple[Tensor | None, bool, SpotterState]:
        """One frame in dB [n_mels] and its power -> the frames [>= 1, n_mels] that the model shall hear, or None;
        whether a word begins with them; and the state, in which the model's own is left as it was."""
        loud = now_db >= min(state.power_db) + self.config.onset_db
        recent = torch.cat((state.recent, frame[None]))[-self.preroll :]
        state = state._replace(
            frames=state.frames + 1, power_db=(*state.power_db[1:], now_db), recent=recent,
            loud=state.loud + 1 if loud else 0,
        )  # fmt: skip
        word, heard, begins = state.word, frame[None], False
        if word is None and state.loud >= self.loud_frames:
            word, heard, begins = Word(None, None, 0, 0), recent, True
        elif word is not None and word.steps >= self.longest:
            word, begins = Word(None, None, 0, word.quiet), True
        if word is None:
            return None, False, state
        quiet = 0 if loud else word.quiet + 1
        left = word._replace(steps=word.steps + len(heard), quiet=quiet) if quiet < self.hangover else None
        return heard, begins, state._replace(word=left)

    def _hear(
        self, waiting: list[Tensor], model: SpikeSCRState | None, peak_db: Tensor | None
    ) -> tuple[list[Tensor], SpikeSCRState, Tensor | None]:
        """Frames of one word -> posteriors [>= 1, classes] for each of `waiting`, and what the model and the front end
        remember. All at once, since most of the cost of a call is the same for one frame and for many."""
        features, peak_db = self.front_end.log_mel.scale_so_far(torch.cat(waiting), peak_db)
        logits, model = self.model.stream(features[:, None], model)
        return list(logits[:, 0].softmax(1).split([len(heard) for heard in waiting])), model, peak_db

    def finish(self, state: SpotterState) -> list[Detection]:
        """The sound is over: a score that was still settling has settled."""
        detection = self.decision.standing(state.decision, state.frames)
        return [detection] if detection else []


def power_db(frame: Tensor) -> Tensor:
    """Power over all bands, in dB: [..., n_mels] in dB -> [...]."""
    return 10 * torch.log10((10 ** (frame / 10)).sum(-1))
