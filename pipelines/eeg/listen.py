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

from spikeloom.accel.common.files import write_json
from spikeloom.bci.data.tokenizer import load_tokenizer
from spikeloom.bci.models.e2t_ptr import E2TPTR
from spikeloom.bci.raw.channels import read_renames
from spikeloom.bci.raw.recordings import onto_net, read_recording
from spikeloom.bci.streaming.decoder import Decode, Decoded, SentenceDecoder, SlidingDecoder, spans_beside
from spikeloom.bci.streaming.live import follow
from spikeloom.bci.streaming.replay import FILTER_CONTEXT, Replay, ReplayConfig, raw_of_net, replay
from spikeloom.bci.zuco.records import SAMPLING_HZ
from spikeloom.bci.zuco.samples import SamplesConfig
from spikeloom.pipelines.config.listen import ListenConfig
from spikeloom.pipelines.training.run_dir import load_config, load_model

log = logging.getLogger("spikeloom")
CHUNK_S = 0.1  # between looks at the stream when sentences are waited for


def run(config: ListenConfig) -> None:
    """Replay, print every text as it comes, and the latency at the end; Ctrl-C closes player and stream."""
    if config.lsl is not None:
        run_live(config)
        return
    file = Path(config.eeg or "")
    rename = None if config.rename is None else read_renames(Path(config.rename))
    net = onto_net(read_recording(file), str(file), config.cap, unit=config.unit, rename=rename)
    n_samples = round(config.seconds * SAMPLING_HZ) or net.eeg_uv.shape[1]
    eeg_uv = net.eeg_uv[:, :n_samples]
    decode, samples = decoder_of(Path(config.run))
    reject_uv, rejection = net.reject_uv(config.reject_uv)
    spans = [span for span in spans_beside(file) if span.off + FILTER_CONTEXT <= eeg_uv.shape[1]]
    reader: SentenceDecoder | SlidingDecoder
    if spans:
        reader = SentenceDecoder(decode, samples, spans, print_decoded, reject_uv)
        settings = replace(config.replay, window_s=CHUNK_S, step_s=CHUNK_S)
        how = f"{len(spans)} sentences, each when it goes off the screen"
    else:
        reader = SlidingDecoder(decode, samples, config.piece_s, print_decoded, reject_uv)
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
    print_summary(reader.decoded, played)
    if config.out:
        write_json(Path(config.out), {
            "run": config.run, "eeg": config.eeg, "onto_net": net.how, "mode": "sentences" if spans else "windows",
            "replay": asdict(settings), "piece_s": config.piece_s, "context_samples": FILTER_CONTEXT,
            "rejection": rejection,
            "decoded": [asdict(one) for one in reader.decoded],
            "samples": played.n_samples if played else None, "seconds": played.seconds if played else None,
            "latency_ms": latency_of(reader.decoded, played),
        })  # fmt: skip
        log.info("-> %s", config.out)


def run_live(config: ListenConfig) -> None:
    """Join a stream of another process and print every text as it comes, until it ends, `seconds` or Ctrl-C."""
    decode, samples = decoder_of(Path(config.run))
    limit = config.reject_uv if config.reject_uv is not None else float("inf")
    decoder = SlidingDecoder(decode, samples, config.piece_s, print_decoded, limit)
    rename = None if config.rename is None else read_renames(Path(config.rename))
    assert config.lsl is not None
    live = None
    with interrupts():
        try:
            live = follow(
                config.lsl, decoder, config.replay, seconds=config.seconds, cap=config.cap, unit=config.unit,
                rename=rename, on_event=lambda text: print(text, flush=True),
            )  # fmt: skip
        except KeyboardInterrupt:
            print("\ninterrupted; the stream is closed", flush=True)
    print_summary(decoder.decoded, None)
    if live is not None:
        print(live.summary())
    if config.out:
        write_json(Path(config.out), {
            "run": config.run, "lsl": config.lsl, "mode": "windows", "replay": asdict(config.replay),
            "piece_s": config.piece_s, "decoded": [asdict(one) for one in decoder.decoded],
            "onto_net": live.how if live else None, "samples": live.n_samples if live else None,
            "gaps_s": [list(gap) for gap in live.gaps] if live else None,
        })  # fmt: skip
        log.info("-> %s", config.out)


def play(eeg_uv: np.ndarray, reader: SentenceDecoder | SlidingDecoder, settings: ReplayConfig) -> Replay | None:
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


def print_decoded(one: Decoded) -> None:
    text = "(nothing but artefacts)" if one.text is None else one.text or "(an empty sentence)"
    lost = f", {one.n_rejected} rejected" if one.n_rejected else ""
    print(f"{one.start_s:8.2f} – {one.end_s:7.2f} s  {one.n_pieces} pieces{lost}: {text}", flush=True)


def print_summary(decoded: list[Decoded], played: Replay | None) -> None:
    """What came of it, after the last sample."""
    empty = sum(one.text is None for one in decoded)
    outputs = {one.text for one in decoded} - {None}
    print(f"{len(decoded)} decoded, {empty} of them without a clean piece; {len(outputs)} different texts")
    if played is not None:
        print(played.summary())
    if latency := latency_of(decoded, played):
        print("latency of a text: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in latency.items()))


def latency_of(decoded: list[Decoded], played: Replay | None) -> dict[str, float] | None:
    """From the push of the last sample that a text needs to the text."""
    if played is None or not decoded:
        return None
    spent = played.latency_ms[[one.window for one in decoded]]
    return {"p50": float(np.median(spent)), "p95": float(np.percentile(spent, 95)), "max": float(spent.max())}
