"""`spikeloom listen`: a causal model hears a wav file, or the microphone, and says each keyword as it goes by.
With eeg=FILE a recording is replayed and decoded instead, in pipelines/listen_eeg.py."""

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from accel.files import write_json
from pipelines.process import set_up
from pipelines.runs import load_model
from pipelines.schema import ListenConfig
from speech.audio import read_wav
from speech.features import LogMelConfig
from speech.streaming import Detection, KeywordSpotter, level_difference_db

log = logging.getLogger("spikeloom")


def run(config: ListenConfig) -> None:
    if config.eeg is not None:
        if config.wav is not None:
            raise ValueError(f"got wav={config.wav} and eeg={config.eeg}; give one of them")
        from pipelines import listen_eeg

        set_up(threads=1)
        listen_eeg.run(config)
        return
    set_up(threads=1)  # a frame is far too small to be shared out
    trained = load_model(Path(config.run) / "model")
    if not isinstance(trained.features, LogMelConfig):
        raise ValueError(f"{config.run} was trained on spikes and cannot hear; give a run with features=gsc or gsc_8k")
    spotter = KeywordSpotter(trained.model, trained.features, trained.class_names, config.spotter)
    rate_hz, hop = trained.features.input_rate_hz, trained.features.hop
    if config.wav:
        waveform = torch.from_numpy(read_wav(config.wav, rate_hz))
        chunks: Iterator[Tensor] = iter(waveform.split(hop))
    else:
        waveform, chunks = None, microphone(rate_hz, hop, config.seconds)
    heard = listen(spotter, chunks)
    heard["wav"] = config.wav
    if waveform is not None:
        heard["level_difference_db"] = level_differences(trained.features, waveform, heard["words_s"])
    tell(heard)
    if config.out:
        write_json(Path(config.out), {"run": config.run, "spotter": asdict(config.spotter), **heard})
        log.info("-> %s", config.out)


def listen(spotter: KeywordSpotter, chunks: Iterator[Tensor]) -> dict[str, Any]:
    """Hear chunks of one hop until they end, or Ctrl-C; says each detection at once. Returns all of it, with timing."""
    state, found, spent_ms, awake_ms = spotter.init_state(), list[Detection](), list[float](), list[float]()
    words: list[list[float]] = []  # begin and end of what the model heard, in seconds
    samples = 0
    try:
        for chunk in chunks:
            asleep, started = state.word is None, time.perf_counter()
            detections, state = spotter.step(chunk, state)
            spent_ms.append(1000 * (time.perf_counter() - started))
            samples += len(chunk)
            now_s = state.frames * spotter.hop_s
            if state.word is not None or not asleep:
                awake_ms.append(spent_ms[-1])
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
    if not spent_ms:
        raise ValueError("heard no sound at all; give a wav file with samples, or seconds= above 0")
    heard_s = samples / spotter.front_end.config.input_rate_hz
    return {
        "detections": [asdict(d) for d in found],
        "heard_s": heard_s,
        "words_s": words,
        "latency_ms": {
            "frame": 1000 * spotter.hop_s,  # a sample waits at most this long for its frame to end; no look-ahead
            "settle": 1000 * spotter.settle * spotter.hop_s,  # a score must stand this long
            "compute_p50": float(np.percentile(awake_ms or spent_ms, 50)),
            "compute_p95": float(np.percentile(awake_ms or spent_ms, 95)),
            "compute_max": max(spent_ms),
        },
        "frames": len(spent_ms),
        "frames_awake": len(awake_ms),
        "real_time_factor": sum(spent_ms) / 1000 / heard_s,
    }


def say(detections: list[Detection]) -> None:
    for detection in detections:
        print(f"{detection.time_s:8.2f} s  {detection.keyword:12s} {detection.confidence:.2f}", flush=True)


def microphone(rate_hz: int, hop: int, seconds: float) -> Iterator[Tensor]:
    """Chunks [hop] from the default input, for `seconds` (0: until Ctrl-C). Raises ValueError where there is none."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the package is there, its PortAudio library is not
        raise ValueError(
            f"no wav=FILE is given, and the microphone needs sounddevice ({error}); "
            "add wav=FILE, or pip install 'spikeloom[stream]'"
        ) from error
    try:
        with sounddevice.InputStream(samplerate=rate_hz, channels=1, dtype="float32", blocksize=hop) as stream:
            log.info("listening; Ctrl-C ends it")
            lost, heard = False, 0
            while not seconds or heard < seconds * rate_hz:
                samples, overflowed = stream.read(hop)
                if overflowed and not lost:
                    lost = True
                    log.warning("samples were lost: this machine hears faster than it thinks (said once)")
                heard += len(samples)
                yield torch.from_numpy(np.ascontiguousarray(samples[:, 0]))
    except sounddevice.PortAudioError as error:
        raise ValueError(f"no microphone at {rate_hz} Hz ({error}); plug one in, or add wav=FILE") from error


def level_differences(features: LogMelConfig, waveform: Tensor, words_s: list[list[float]]) -> dict[str, float] | None:
    """How far the running peak lay from the peak of the whole word, over all frames of all words; None without one."""
    if not words_s or not features.level_scaling:
        return None
    cut = [waveform[round(b * features.sample_rate_hz) : round(e * features.sample_rate_hz)] for b, e in words_s]
    difference = torch.cat([level_difference_db(features, samples) for samples in cut if len(samples) >= features.hop])
    return {"mean_absolute": float(difference.abs().mean()), "largest_absolute": float(difference.abs().max())}


def tell(heard: dict[str, Any]) -> None:
    """What was heard and how fast, after the last sample."""
    latency, level = heard["latency_ms"], heard.get("level_difference_db")
    print(
        f"{len(heard['detections'])} keywords in {heard['heard_s']:.1f} s; "
        f"awake in {heard['frames_awake']} of {heard['frames']} frames\n"
        f"latency: frame {latency['frame']:.0f} ms + decision {latency['settle']:.0f} ms + compute "
        f"{latency['compute_p50']:.2f} ms (p95 {latency['compute_p95']:.2f}, max {latency['compute_max']:.1f})\n"
        f"real-time factor {heard['real_time_factor']:.3f}"
    )
    if level:
        print(
            f"running level against that of the whole word: {level['mean_absolute']:.1f} dB in the mean, "
            f"{level['largest_absolute']:.1f} dB at most"
        )
