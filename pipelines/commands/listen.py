"""`spikeloom listen`: stream a sound file of any length, or the microphone, through a causal model; prints keywords.
With without_keywords=… its false accepts and misses are measured instead. With eeg=FILE a recording is replayed and
decoded, in pipelines/eeg/listen.py."""

import logging
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikeloom.accel.common.changes import changes
from spikeloom.accel.common.files import first_few, write_json
from spikeloom.pipelines.config.listen import ListenConfig
from spikeloom.pipelines.domains.speech import choose
from spikeloom.pipelines.reports import detection_error as story
from spikeloom.pipelines.training.run_dir import load_config, load_model
from spikeloom.pipelines.training.run_names import is_builtin, root_here
from spikeloom.pipelines.training.runtime import set_up
from spikeloom.pipelines.training.scoring import by_model_class
from spikeloom.speech.datasets.audio import stream_audio
from spikeloom.speech.datasets.background import background
from spikeloom.speech.datasets.folders import find_audio
from spikeloom.speech.detection_error import detection_error
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.streaming import Detection, KeywordSpotter, is_keyword, level_difference_db

log = logging.getLogger("spikeloom")


def run(config: ListenConfig) -> None:
    if config.eeg is not None or config.lsl is not None:
        given = {name: value for name in ("wav", "eeg", "lsl") if (value := getattr(config, name)) is not None}
        if len(given) > 1:
            raise ValueError(f"got {' and '.join(f'{k}={v}' for k, v in given.items())}; give one of them")
        from spikeloom.pipelines.eeg import listen as listen_eeg

        set_up(threads=1)
        listen_eeg.run(config)
        return
    set_up(threads=1)  # a frame is far too small to be shared out
    trained = load_model(Path(config.run) / "model")
    if not isinstance(trained.features, LogMelConfig):
        raise ValueError(
            f"{config.run} was trained with features that do not stream (got {trained.features.kind}); "
            "give a run with features=gsc or gsc_8k"
        )
    spotter = KeywordSpotter(trained.model, trained.features, trained.class_names, config.spotter)
    if config.without_keywords is not None:
        measure_errors(config, spotter)
        return
    rate_hz, hop = trained.features.input_rate_hz, trained.features.hop
    log.info(
        "listen: %s with the words %s; %s at %d Hz", load_config(Path(config.run)).name,
        first_few(trained.class_names, 12), config.wav or "the microphone", rate_hz,
    )  # fmt: skip
    spotter.warm_up()
    if config.wav:
        session = listen(spotter, of_length(stream_audio(config.wav, rate_hz), hop))
    else:
        session = listen(spotter, microphone(rate_hz, hop, config.seconds, config.device))
    session["wav"] = config.wav
    if config.wav:
        words = words_of(stream_audio(config.wav, rate_hz), session["words_s"], rate_hz)
        session["level_difference_db"] = level_differences(trained.features, words)
        session["changes"] = changes.summary()
    print_summary(session)
    if config.out:
        write_json(Path(config.out), {"run": config.run, "spotter": asdict(config.spotter), **session})
        log.info("-> %s", config.out)


def measure_errors(config: ListenConfig, spotter: KeywordSpotter) -> None:
    """False accepts an hour and misses, at every threshold."""
    if config.wav is not None or config.device is not None:
        raise ValueError("without_keywords= is measured on that sound alone; remove wav= and device=")
    trained_with = load_config(Path(config.run))
    if is_builtin(Path(config.run)):
        trained_with.data.root = root_here(trained_with.data.root)
    try:
        chosen = choose(trained_with, "test" if config.keywords is None else "all", config.keywords)
    except FileNotFoundError as error:
        raise ValueError(f"{error}; or give the keyword clips with keywords=FOLDER") from error
    clips = by_model_class(chosen, tuple(spotter.class_names))
    rate_hz = spotter.front_end.config.input_rate_hz
    given = str(config.without_keywords)
    synthetic = given == "synthetic"
    sound = background(config.hours, rate_hz) if synthetic else blocks_of(Path(given), rate_hz)
    what = "synthetic noise and invented speech" if synthetic else given
    log.info(
        "listen: %s, %d keyword clips, and %s without keywords", config.run, min(len(clips), config.keyword_clips), what
    )
    found = detection_error(spotter, sound, clips, n_clips=config.keyword_clips)
    story.print_summary(found, config.spotter.threshold)
    for line in changes.summary():
        print(line)
    if config.out:
        written = {"run": config.run, "without_keywords": given, "spotter": asdict(config.spotter), **found.as_dict()}
        write_json(Path(config.out), written)
        log.info("-> %s", config.out)
    if config.page:
        story.write_page(found, trained_with.name, what, config.spotter.threshold, Path(config.page))
        log.info("-> %s", config.page)


def blocks_of(path: Path, rate_hz: int) -> Iterator[np.ndarray]:
    """The samples of a sound file, or of all in a folder, one after another, block by block."""
    files = find_audio(path, recursive=True) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path}: no sound file in this folder; give another, or without_keywords=synthetic")
    for file in files:
        yield from stream_audio(str(file), rate_hz)


def of_length(blocks: Iterator[np.ndarray], n: int) -> Iterator[Tensor]:
    """The same samples in chunks of `n`; the last one may be shorter."""
    left = np.zeros(0, np.float32)
    for block in blocks:
        left = np.concatenate((left, block))
        whole = len(left) // n * n
        yield from torch.from_numpy(left[:whole]).split(n) if whole else ()
        left = left[whole:]
    if len(left):
        yield torch.from_numpy(left)


def words_of(blocks: Iterator[np.ndarray], words_s: list[list[float]], rate_hz: int) -> Iterator[Tensor]:
    """The samples of each stretch of `words_s`, which are in order, from one pass over the blocks."""
    spans = [(round(begin * rate_hz), round(end * rate_hz)) for begin, end in words_s]
    kept, first = np.zeros(0, np.float32), 0  # samples from number `first` on
    for block in blocks:
        kept = np.concatenate((kept, block))
        while spans and spans[0][1] <= first + len(kept):
            begin, end = spans.pop(0)
            yield torch.from_numpy(kept[max(0, begin - first) : end - first].copy())
        needed = spans[0][0] if spans else first + len(kept)
        dropped = max(0, min(len(kept), needed - first))
        kept, first = kept[dropped:], first + dropped
    for begin, end in spans:
        yield torch.from_numpy(kept[max(0, begin - first) : end - first].copy())


class Durations:
    """Times of any number of frames in bounded memory: counts in classes of 2 % width, from 1 microsecond on."""

    SMALLEST_MS, RATIO, CLASSES = 1e-3, 1.02, 1200  # up to hours

    def __init__(self) -> None:
        self.counts = np.zeros(self.CLASSES, np.int64)
        self.n, self.total_ms, self.largest_ms = 0, 0.0, 0.0

    def add(self, ms: float) -> None:
        where = int(math.log(max(ms, self.SMALLEST_MS) / self.SMALLEST_MS, self.RATIO))
        self.counts[min(where, self.CLASSES - 1)] += 1
        self.n, self.total_ms, self.largest_ms = self.n + 1, self.total_ms + ms, max(self.largest_ms, ms)

    def percentile(self, percent: float) -> float:
        """In milliseconds, the middle of the class it lies in."""
        where = int(np.searchsorted(np.cumsum(self.counts), percent / 100 * self.n))
        return min(self.largest_ms, self.SMALLEST_MS * self.RATIO ** (where + 0.5))


def listen(spotter: KeywordSpotter, chunks: Iterator[Tensor]) -> dict[str, Any]:
    """Hear chunks of one hop until they end, or Ctrl-C; says each detection at once. Returns all of it, with timing."""
    state, found = spotter.init_state(), list[Detection]()
    spent, awake = Durations(), Durations()
    words: list[list[float]] = []  # begin and end of what the model heard, in seconds
    samples, closest = 0, Detection(keyword="", time_s=0.0, confidence=0.0)
    try:
        for chunk in chunks:
            asleep, started = state.word is None, time.perf_counter()
            detections, state = spotter.step(chunk, state)
            spent_ms = 1000 * (time.perf_counter() - started)
            spent.add(spent_ms)
            samples += len(chunk)
            now_s, peak = state.frames * spotter.hop_s, state.decision.peak
            if peak.score > closest.confidence and is_keyword(name := spotter.class_names[peak.label]):
                closest = Detection(keyword=name, time_s=now_s, confidence=peak.score)
            if state.word is not None or not asleep:
                awake.add(spent_ms)
            if asleep and state.word is not None:
                words.append([now_s - state.word.steps * spotter.hop_s, now_s])
            elif not asleep:
                words[-1][1] = now_s
            say(detections)
            found += detections
    except KeyboardInterrupt:
        print()
    last = spotter.finish(state)
    say(last)
    found += last
    if not spent.n:
        raise ValueError("got no sound at all; give a wav file with samples, or seconds= above 0")
    seconds = samples / spotter.front_end.config.input_rate_hz
    return {
        "detections": [asdict(d) for d in found],
        "closest": asdict(closest) if not found and closest.confidence else None,
        "threshold": spotter.config.threshold,
        "seconds": seconds,
        "words_s": words,
        "latency_ms": {
            "frame": 1000 * spotter.hop_s,  # a sample waits at most this long for its frame to end; no look-ahead
            "settle": 1000 * spotter.decision.settle * spotter.hop_s,  # a score must stand this long
            "compute_p50": (awake if awake.n else spent).percentile(50),
            "compute_p95": (awake if awake.n else spent).percentile(95),
            "compute_max": spent.largest_ms,
        },
        "frames": spent.n,
        "frames_awake": awake.n,
        "real_time_factor": spent.total_ms / 1000 / seconds,
    }


def say(detections: list[Detection]) -> None:
    for detection in detections:
        print(f"{detection.time_s:8.2f} s  {detection.keyword:12s} {detection.confidence:.2f}", flush=True)


def microphone(rate_hz: int, hop: int, seconds: float, device: str | None = None) -> Iterator[Tensor]:
    """Chunks [hop] from an input (None: the default one), for `seconds` (0: until Ctrl-C).

    Raises ValueError where there is none.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the package is there, its PortAudio library is not
        raise ValueError(
            f"no wav=FILE is given, and the microphone needs sounddevice ({error}); "
            "add wav=FILE, or pip install 'spikeloom[stream]'"
        ) from error
    try:
        chosen = {"device": int(device) if device.isdigit() else device} if device is not None else {}
        with sounddevice.InputStream(
            samplerate=rate_hz, channels=1, dtype="float32", blocksize=hop, **chosen
        ) as stream:  # fmt: skip
            log.info("listening; Ctrl-C ends it")
            lost, received = False, 0
            while not seconds or received < seconds * rate_hz:
                samples, overflowed = stream.read(hop)
                if overflowed and not lost:
                    lost = True
                    log.warning("samples were lost: sound arrives faster than the model runs; said once")
                received += len(samples)
                yield torch.from_numpy(np.ascontiguousarray(samples[:, 0]))
    except (sounddevice.PortAudioError, ValueError) as error:  # ValueError: no device of that name
        named = f" {device}" if device is not None else ""
        raise ValueError(f"no microphone{named} at {rate_hz} Hz ({error}); plug one in, or add wav=FILE") from error


def level_differences(features: LogMelConfig, words: Iterable[Tensor]) -> dict[str, float] | None:
    """How far the running peak lay from the peak of the whole word, over all frames of all words; None without one."""
    if not features.level_scaling:
        return None
    total, largest, n = 0.0, 0.0, 0
    for samples in words:
        if len(samples) >= features.hop:
            difference = level_difference_db(features, samples).abs()
            total, largest = total + float(difference.sum()), max(largest, float(difference.max()))
            n += len(difference)
    return {"mean_absolute": total / n, "largest_absolute": largest} if n else None


def print_summary(session: dict[str, Any]) -> None:
    """What was detected and how fast, after the last sample."""
    latency, level = session["latency_ms"], session.get("level_difference_db")
    for line in session.get("changes", ()):
        print(line)
    print(
        f"{len(session['detections'])} keyword{'s' * (len(session['detections']) != 1)} in {session['seconds']:.1f} s; "
        f"awake in {session['frames_awake']} of {session['frames']} frames\n"
        f"latency: frame {latency['frame']:.0f} ms + decision {latency['settle']:.0f} ms + compute "
        f"{latency['compute_p50']:.2f} ms (p95 {latency['compute_p95']:.2f}, max {latency['compute_max']:.1f})\n"
        f"real-time factor {session['real_time_factor']:.3f}"
    )
    if closest := session["closest"]:
        print(
            f"no score reached the threshold {session['threshold']:g}; closest: {closest['keyword']} at "
            f"{closest['time_s']:.2f} s with {closest['confidence']:.2f} (spotter.threshold= lowers it)"
        )
    elif not session["frames_awake"]:
        print("nothing stood out of the background; speak louder or closer, or lower spotter.onset_db=")
    if level:
        print(
            f"running level against that of the whole word: {level['mean_absolute']:.1f} dB in the mean, "
            f"{level['largest_absolute']:.1f} dB at most"
        )
