"""`spikeloom listen run=RUN eeg=FILE`: a recording is replayed over the lab streaming layer at its own pace, and a
decoder (an E2T-PTR run) reads it: in sliding windows, or, where events lie beside it (BIDS), sentence by sentence.

What it prints is what the decoder writes, not a result: only `spikeloom evaluate` says whether the EEG is read at all.
"""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from accel.files import write_json
from bci.e2t_ptr import E2TPTR
from bci.listening import Decode, Heard, SentenceReader, SlidingReader, spans_beside
from bci.raw.recordings import onto_net, read_recording
from bci.streaming import FILTER_CONTEXT, Replay, ReplayConfig, raw_of_net, replay
from bci.tokenizer import load_tokenizer
from bci.zuco.records import SAMPLING_HZ
from bci.zuco.samples import SamplesConfig
from pipelines.runs import load_config, load_model
from pipelines.schema import ListenConfig

log = logging.getLogger("spikeloom")
CHUNK_S = 0.1  # between looks at the stream when sentences are waited for


def run(config: ListenConfig) -> None:
    """Replay, print every text as it comes, and the latency at the end; Ctrl-C closes player and stream."""
    file = Path(config.eeg or "")
    net = onto_net(read_recording(file), file.name, config.cap)
    n_samples = round(config.seconds * SAMPLING_HZ) or net.eeg_uv.shape[1]
    eeg_uv = net.eeg_uv[:, :n_samples]
    decode, samples = decoder_of(Path(config.run))
    reject_uv, rejection = net.reject_uv(config.reject_uv)
    spans = [span for span in spans_beside(file) if span.off + FILTER_CONTEXT <= eeg_uv.shape[1]]
    reader: SentenceReader | SlidingReader
    if spans:
        reader = SentenceReader(decode, samples, spans, say, reject_uv)
        settings = replace(config.replay, window_s=CHUNK_S, step_s=CHUNK_S)
        how = f"{len(spans)} sentences, each when it goes off the screen"
    else:
        reader = SlidingReader(decode, samples, config.piece_s, say, reject_uv)
        settings = config.replay
        how = f"windows of {settings.window_s:g} s every {settings.step_s:g} s, in pieces of {config.piece_s:g} s"
        if eeg_uv.shape[1] < round(settings.window_s * SAMPLING_HZ):
            raise ValueError(
                f"{file} has {eeg_uv.shape[1] / SAMPLING_HZ:.1f} s, less than replay.window_s={settings.window_s:g}; "
                "use a shorter window, or more seconds"
            )
    print(f"{file.name}: {net.how}\n{how}\n{rejection}")
    context = f"zero-phase filters hear {FILTER_CONTEXT} samples on either side of a span"
    print(f"{context}: text comes that much later", flush=True)
    played = play(eeg_uv, reader, settings)
    tell(reader.heard, played)
    if config.out:
        write_json(Path(config.out), {
            "run": config.run, "eeg": config.eeg, "onto_net": net.how, "mode": "sentences" if spans else "windows",
            "replay": asdict(settings), "piece_s": config.piece_s, "context_samples": FILTER_CONTEXT,
            "rejection": rejection,
            "heard": [asdict(heard) for heard in reader.heard],
            "samples": played.n_samples if played else None, "seconds": played.seconds if played else None,
            "latency_ms": latency_of(reader.heard, played),
        })  # fmt: skip
        log.info("-> %s", config.out)


def play(eeg_uv: np.ndarray, reader: SentenceReader | SlidingReader, settings: ReplayConfig) -> Replay | None:
    """The replay, None where it was interrupted; either way player and stream are closed."""
    with interrupts():
        try:
            return replay(raw_of_net(eeg_uv), reader, settings)
        except KeyboardInterrupt:
            print("\ninterrupted; player and stream are closed", flush=True)
            return None


@contextmanager
def interrupts() -> Iterator[None]:
    """Both ways to be asked to stop, Ctrl-C and SIGTERM, raise KeyboardInterrupt inside."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def decoder_of(run: Path) -> tuple[Decode, SamplesConfig]:
    """What a finished decoder run writes for tokens, and how its samples are made. Raises ValueError for other runs."""
    trained = load_model(run / "model")
    model = trained.model
    if not isinstance(model, E2TPTR):
        raise ValueError(
            f"{run} holds a {type(model).__name__}, which writes no text; give a run of "
            "`spikeloom train experiment=e2t_ptr_synthetic pretrained=RUN`"
        )
    tokenizer = load_tokenizer(run / "model")
    decoding = load_config(run).model.decoding

    @torch.no_grad()
    def decode(tokens: torch.Tensor, mask: torch.Tensor) -> str:
        (text,) = tokenizer.decode(model.generate(tokens, mask, decoding))
        return text

    return decode, trained.features.samples


def say(heard: Heard) -> None:
    text = "(nothing but artefacts)" if heard.text is None else heard.text or "(an empty sentence)"
    lost = f", {heard.n_rejected} rejected" if heard.n_rejected else ""
    print(f"{heard.start_s:8.2f} – {heard.end_s:7.2f} s  {heard.n_pieces} pieces{lost}: {text}", flush=True)


def tell(heard: list[Heard], played: Replay | None) -> None:
    """What came of it, after the last sample."""
    empty = sum(one.text is None for one in heard)
    outputs = {one.text for one in heard} - {None}
    print(f"{len(heard)} decoded, {empty} of them without a clean piece; {len(outputs)} different texts")
    if played is not None:
        print(played.summary())
    if latency := latency_of(heard, played):
        print("latency of a text: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in latency.items()))


def latency_of(heard: list[Heard], played: Replay | None) -> dict[str, float] | None:
    """From the push of the last sample that a text needs to the text."""
    if played is None or not heard:
        return None
    spent = played.latency_ms[[one.window for one in heard]]
    return {"p50": float(np.median(spent)), "p95": float(np.percentile(spent, 95)), "max": float(spent.max())}
