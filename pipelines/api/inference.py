"""From a recording to a label or a text in one call: front end, model and class names of a run."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikeloom.pipelines.api.runs import load
from spikeloom.pipelines.training.run_dir import TrainedModel
from spikeloom.pipelines.training.run_names import find_run

__all__ = ["Pipeline", "Prediction", "pipeline"]

log = logging.getLogger("spikeloom")
BATCH = 64  # inputs that a classifier is given at once


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a classifier says of one input: the most probable class, its probability, and those of all classes."""

    label: str
    probability: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Front end, model and class names of a run in one callable; `pipeline` makes it and describes the inputs."""

    trained: TrainedModel
    answer: Callable[[Sequence[Any], Mapping[str, Any]], list[Any]]  # inputs and keywords -> one answer each

    def __call__(self, inputs: Any, **context: Any) -> Any:
        """The answer for one input, or for a list of inputs the list of their answers."""
        if isinstance(inputs, list):
            return self.answer(inputs, context) if inputs else []
        (answer,) = self.answer([inputs], context)
        return answer


def pipeline(run: str | Path) -> Pipeline:
    """The way from a recording to a label (speech, pictures, events) or to a text (EEG) with a trained model.

    Args:
        run: as `load` takes it.

    Returns:
        A callable. Give it one input, or a list of inputs that are processed in batches:

        - speech: the path of a sound file, or a waveform, float [n_samples] in [-1, 1], with ``sample_rate_hz=``, which
            is resampled where the model needs another rate; of a model trained on spikes, `Events` (times in
            seconds, units);
        - pictures: the path of a picture file, a PIL image, or uint8 [H, W] or [H, W, 3];
        - events: the path of a recording (AEDAT 2.0, 3.1, 4, or N-MNIST .bin) or a `Recording`;
        - EEG: the path of a recording (EDF, BDF, EEGLAB, BrainVision, FIF; ``cap=`` as in `spikeloom listen`), a float
            array [105, n_times] in microvolts at 500 Hz on the channels of ZuCo, which is decoded as one span in pieces
            of ``piece_s`` (0.25 s) without those beyond ``reject_uv`` (90 µV), or tokens [L, 840] as the training makes
            them.

        Labels come as `Prediction`, texts as str.

    Raises:
        ValueError: where `load` does, for a model that neither classifies nor writes, and, when called, for an input
            that cannot be used; the message says what to change.

    Examples:
        >>> import numpy as np, spikeloom
        >>> recognise = spikeloom.pipeline("runs/digits")
        >>> found = recognise(np.zeros((16, 16), dtype=np.uint8))
        >>> found.label in recognise.trained.class_names, 0 < found.probability <= 1
        (True, True)
    """
    trained = load(run)
    kind = trained.features.kind
    if kind in ("log_mel", "mfcc"):
        return Pipeline(trained=trained, answer=_classifier(trained, _waveform, _classify_speech))
    if kind == "event_bins":
        return Pipeline(trained=trained, answer=_classifier(trained, _spikes, _classify_speech))
    if kind == "pixels":
        return Pipeline(trained=trained, answer=_classifier(trained, _picture, _classify_frames))
    if kind == "event_frames":
        return Pipeline(trained=trained, answer=_classifier(trained, _events, _classify_frames))
    folder = find_run(run)
    return Pipeline(trained=trained, answer=_reader(folder if (folder / "model").is_dir() else folder.parent))


def _classifier(
    trained: TrainedModel,
    frames_of: Callable[..., Tensor],
    log_probabilities: Callable[[Any, list[Tensor]], Tensor],
) -> Callable[[Sequence[Any], Mapping[str, Any]], list[Prediction]]:
    """frames_of(front end, input, **context) -> what the model sees of one input; log_probabilities of a batch."""
    features = trained.features
    front_end = features.build() if hasattr(features, "build") else features
    names = trained.class_names

    def answer(inputs: Sequence[Any], context: Mapping[str, Any]) -> list[Prediction]:
        found = list[Prediction]()
        for first in range(0, len(inputs), BATCH):
            frames = [frames_of(front_end, given, **context) for given in inputs[first : first + BATCH]]
            with torch.inference_mode():
                probabilities = log_probabilities(trained.model, frames).exp()
            for row in probabilities.tolist():
                best = max(range(len(row)), key=row.__getitem__)
                by_name = dict(zip(names, row, strict=True))
                found.append(Prediction(label=names[best], probability=row[best], probabilities=by_name))
        return found

    return answer


# --- speech -----------------------------------------------------------------------------------------------------------


def _waveform(front_end: Any, given: Any, *, sample_rate_hz: int | None = None) -> Tensor:
    from spikeloom.speech.datasets.audio import OVERSHOOT, read_audio, resample

    rate_hz = front_end.config.input_rate_hz
    if isinstance(given, str | Path):
        samples = read_audio(given, rate_hz)
    else:
        samples = np.asarray(given)
        if samples.ndim != 1 or not len(samples) or samples.dtype.kind != "f":
            raise ValueError(
                f"a waveform is float [n_samples] in [-1, 1] (got {samples.dtype} {list(samples.shape)}); average its "
                "channels, and divide whole numbers by their largest value"
            )
        if sample_rate_hz is None:
            raise ValueError("the sample rate of a waveform is not known (got none); add sample_rate_hz=")
        if not np.isfinite(samples).all() or np.abs(samples).max() > OVERSHOOT:
            raise ValueError(
                f"a waveform lies in [-1, 1] (got values up to {np.abs(samples).max():g}); scale or repair it"
            )
        samples = resample(samples.astype(np.float32), sample_rate_hz, rate_hz)
    if len(samples) > (longest := front_end.clip_samples):
        log.warning(
            "%.2f s of sound for a model of clips of %g s: one clip of it is used; `spikeloom listen` streams",
            len(samples) / rate_hz, longest / rate_hz,
        )  # fmt: skip
    frames: Tensor = front_end.frames(np.ascontiguousarray(samples))
    return frames


def _spikes(front_end: Any, given: Any) -> Tensor:
    from spikeloom.speech.datasets.spike_trains import Events

    times_s, units = (np.asarray(column) for column in given)
    n_units = front_end.config.n_units
    if times_s.shape != units.shape or times_s.ndim != 1 or (len(units) and not 0 <= units.min() <= units.max()):
        raise ValueError(
            f"spikes are times in seconds [n] and units [n] (got {list(times_s.shape)} and {list(units.shape)})"
        )
    if len(units) and units.max() >= n_units:
        raise ValueError(f"the model knows units 0 to {n_units - 1} (got {units.max()}); number them alike")
    frames: Tensor = front_end.frames(Events(times_s.astype(np.float64), units.astype(np.int64)))
    return frames


def _classify_speech(model: Any, frames: list[Tensor]) -> Tensor:
    from spikeloom.speech.models.readout import read_out

    lengths = torch.tensor([len(clip) for clip in frames])
    padded_TBN = torch.nn.utils.rnn.pad_sequence([clip.float() for clip in frames])
    return read_out(model, model(padded_TBN, lengths), lengths)


# --- vision -----------------------------------------------------------------------------------------------------------


def _picture(front_end: Any, given: Any) -> Tensor:
    from PIL import Image

    from spikeloom.vision.datasets.images import read_image

    if isinstance(given, str | Path):
        picture = read_image(Path(given))
    else:
        picture = np.asarray(given.convert("RGB") if isinstance(given, Image.Image) and given.mode != "L" else given)
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
        raise ValueError(
            f"a picture is uint8 [H, W] or [H, W, 3] (got {picture.dtype} {list(picture.shape)}); scale its values to "
            "0…255 and put the colours last"
        )
    frames: Tensor = front_end.frames(picture)
    return frames


def _events(front_end: Any, given: Any) -> Tensor:
    from spikeloom.vision.datasets.events import Recording
    from spikeloom.vision.datasets.readers import read_events

    recording = read_events(Path(given)) if isinstance(given, str | Path) else given
    if not isinstance(recording, Recording):
        raise ValueError(f"events are a file or a Recording (got {type(given).__name__}); give one of these")
    frames: Tensor = front_end.frames(recording.events, recording.sensor)
    return frames


def _classify_frames(model: Any, frames: list[Tensor]) -> Tensor:
    shapes = {tuple(one.shape) for one in frames}
    if len(shapes) > 1:
        raise ValueError(f"recordings of one sensor are processed together (got frames {sorted(shapes)}); split them")
    stacked = torch.stack(frames)  # [B, C, H, W] or [B, T, 2, H, W]
    logits: Tensor = model(stacked if stacked.dim() == 4 else stacked.transpose(0, 1).contiguous())
    return logits.float().log_softmax(1)


# --- EEG --------------------------------------------------------------------------------------------------------------


def _reader(run: Path) -> Callable[[Sequence[Any], Mapping[str, Any]], list[str]]:
    """A decoder of EEG: one text for each input."""
    from spikeloom.bci.raw.features import REJECT_UV
    from spikeloom.bci.raw.recordings import onto_net, read_recording
    from spikeloom.bci.streaming.decoder import tokens_of
    from spikeloom.bci.streaming.replay import FILTER_CONTEXT
    from spikeloom.bci.zuco.records import CHANNELS, N_FEATURES, SAMPLING_HZ
    from spikeloom.pipelines.eeg.listen import decoder_of

    decode, samples = decoder_of(run)

    def answer(inputs: Sequence[Any], context: Mapping[str, Any]) -> list[str]:
        return [read(given, **context) for given in inputs]

    def read(given: Any, *, cap: str | None = None, piece_s: float = 0.25, reject_uv: float | None = None) -> str:
        if isinstance(given, str | Path):
            net = onto_net(read_recording(Path(given)), str(given), cap)
            limit_uv, _ = net.reject_uv(reject_uv)
            pieces = pieces_of(net.eeg_uv, piece_s)
            return decoded(net.eeg_uv, pieces[~net.in_bad_span(pieces)], limit_uv)
        eeg = np.asarray(given, dtype=np.float64)
        finite = eeg.ndim == 2 and bool(np.isfinite(eeg).all())
        if finite and eeg.shape[1] == N_FEATURES and 0 < len(eeg) <= samples.max_length:
            return written(torch.from_numpy(eeg.astype(np.float32))[:, None])
        if not finite or len(eeg) != len(CHANNELS):
            raise ValueError(
                f"EEG is [{len(CHANNELS)}, n_times] in microvolts at 500 Hz, or up to {samples.max_length} tokens "
                f"[L, {N_FEATURES}], all finite (got {list(eeg.shape)}); interpolate it onto the net, or give the path "
                "of the recording"
            )
        if 0 < np.abs(eeg).max() < 0.01:
            raise ValueError(f"EEG is in microvolts (got {np.abs(eeg).max():g} at most, as of volts); multiply by 1e6")
        return decoded(eeg, pieces_of(eeg, piece_s), REJECT_UV if reject_uv is None else reject_uv)

    def pieces_of(eeg_uv: np.ndarray, piece_s: float) -> np.ndarray:
        """Samples (first, end) of equal pieces in place of fixations, int64 [n, 2], between the filters' context."""
        length, end = round(piece_s * SAMPLING_HZ), eeg_uv.shape[1] - FILTER_CONTEXT
        starts = np.arange(FILTER_CONTEXT, end - length + 1, length) if length >= 10 else np.zeros(0, dtype=np.int64)
        if not len(starts):
            least_s = (2 * FILTER_CONTEXT + max(10, length)) / SAMPLING_HZ
            raise ValueError(
                f"the recording is too short for a piece of {piece_s:g} s (got {eeg_uv.shape[1] / SAMPLING_HZ:.2f} s); "
                f"use at least {least_s:.2f} s and piece_s of 0.02 or more"
            )
        most = samples.max_length - samples.sentence_token
        if len(starts) > most:
            log.warning(
                "%d pieces of %g s for a model of sentences of %d: only the first are used; cut the recording, or use "
                "`spikeloom listen`", len(starts), piece_s, most,
            )  # fmt: skip
        return np.stack((starts, starts + length), axis=1)[:most]

    def decoded(eeg_uv: np.ndarray, pieces: np.ndarray, limit_uv: float) -> str:
        tokens = None
        if len(pieces):
            tokens = tokens_of(eeg_uv, pieces, (int(pieces[0, 0]), int(pieces[-1, 1])), samples, limit_uv)
        if tokens is None:
            raise ValueError(
                f"no piece is free of artefacts (limit {limit_uv:g} µV); clean the recording, or raise reject_uv"
            )
        return written(tokens)

    def written(tokens_LBF: Tensor) -> str:
        return decode(tokens_LBF, torch.ones(tokens_LBF.shape[:2], dtype=torch.bool))

    return answer
