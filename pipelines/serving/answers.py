"""What the live page answers: functions from an uploaded file and a few choices to a headline and a page as text.

Nothing here knows Gradio. Each function reads files below one folder alone, checks their kind and size before it opens
them, keeps no state between calls, and may be called from several threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch

from spikeloom.accel.analysis import report as energy_report
from spikeloom.accel.common.charts import WIDTH_IN
from spikeloom.accel.common.report import INK, MUTED, Section, Table, new_figure, page_text, palette
from spikeloom.accel.common.units import counted, duration_text, energy_text
from spikeloom.accel.trainer.chip.override import SPARSITIES, ChipConfig, with_counted_pulses
from spikeloom.accel.trainer.networks import PUBLISHED
from spikeloom.accel.trainer.report.console import headline
from spikeloom.accel.trainer.report.simulation import sections as simulation_sections
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.accel.trainer.workload import Density, Layer, Workload
from spikeloom.pipelines.api.runs import load
from spikeloom.pipelines.api.scoring import score
from spikeloom.pipelines.config.chips import load_chip, names
from spikeloom.pipelines.config.serve import ServeConfig
from spikeloom.speech import charts as figures
from spikeloom.speech.batches import featurise
from spikeloom.speech.datasets.audio import stream_audio
from spikeloom.speech.datasets.utterances import Utterances
from spikeloom.speech.energy import count_operations
from spikeloom.speech.models.prediction import record_spikes
from spikeloom.speech.streaming import Detection, KeywordSpotter

SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
DECODED = (".txt", ".csv", ".tsv", ".json", ".jsonl")
NETWORKS = (".json", ".onnx")
MOST_BATCH, MOST_CORES = 256, 64
_DRAWING = Lock()  # matplotlib's settings belong to the process


class Answer(NamedTuple):
    """`said` in a line or two, and `page`, a whole HTML page with figures and tables."""

    said: str
    page: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where uploads lie, and how large they may be."""

    folder: Path
    max_bytes: int
    max_s: float

    @classmethod
    def of(cls, config: ServeConfig, folder: Path) -> "Limits":
        if config.max_mb < 1 or config.max_s <= 0:
            raise ValueError(f"got max_mb={config.max_mb} and max_s={config.max_s}; use at least 1 and more than 0")
        return cls(folder=folder.resolve(), max_bytes=config.max_mb * 1_000_000, max_s=config.max_s)

    def checked(self, file: str | Path | None, suffixes: Sequence[str], what: str) -> Path:
        """The path of an upload. Raises ValueError for none, one outside the folder, of another kind, or too large."""
        if not file:
            raise ValueError(f"no file was given; upload {what} ({', '.join(suffixes)})")
        path = Path(file).resolve()  # links are followed, so that none leads out
        if not path.is_relative_to(self.folder) or not path.is_file():
            raise ValueError(f"{Path(file).name} is not an uploaded file; upload it on this page")
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"{path.name} is not {what}; upload one of {', '.join(suffixes)}")
        if path.stat().st_size > self.max_bytes:
            raise ValueError(
                f"{path.name} has {path.stat().st_size:,} bytes, more than {self.max_bytes:,}; upload a smaller "
                "file, or start the page with max_mb="
            )
        return path


def page_of(title: str, lead: str, sections: Sequence[Section], facts: dict[str, str]) -> str:
    with _DRAWING:
        return page_text(title, lead, sections, facts)


# --- keywords -------------------------------------------------------------------------------------------------------


class Listener:
    """A causal speech model that streams recordings.

    Args:
        run: as for `spikeloom.load`.

    Raises:
        ValueError: for a model that does not stream.
    """

    def __init__(self, run: str) -> None:
        self.trained = load(run)
        self.name = run
        KeywordSpotter(self.trained.model, self.trained.features, self.trained.class_names)  # refuses others at once

    def __call__(self, file: str | Path | None, limits: Limits) -> Answer:
        """The keywords of a recording over time, the spikes of one, and the energy of an inference.

        Args:
            file: a sound file below `limits.folder`.
            limits: of files.

        Returns:
            The words in order, and the page.

        Raises:
            ValueError: for a file that is none, too large, too long or silent in all samples.
        """
        path = limits.checked(file, SOUNDS, "a recording")
        features = self.trained.features
        rate_hz = features.input_rate_hz
        samples = self._samples(path, rate_hz, limits.max_s)
        found = self.detections(samples)
        # One clip as the model was trained on: around the surest keyword, else the loudest second.
        length = min(len(samples), round(features.clip_s * rate_hz))
        best = max(found, key=lambda one: one.confidence, default=None)
        if best is None:
            power = np.convolve(samples.astype(np.float64) ** 2, np.ones(max(1, length)), mode="valid")
            first = int(power.argmax())
        else:
            first = max(0, min(round(best.time_s * rate_hz) - round(0.8 * length), len(samples) - length))
        clip, word = samples[first : first + length], best.keyword if best else "no keyword"
        clips = Utterances(
            labels=np.zeros(1, np.int64), names=[path.name], speakers=["you"],
            class_names=self.trained.class_names, waveforms=[clip], sample_rate_hz=rate_hz,
        )  # fmt: skip
        feature_set = featurise(clips, features.build())
        frames = np.asarray(features.build().frames(clip))
        spikes = record_spikes(self.trained.model, torch.from_numpy(frames))
        steps = {name: fired[np.arange(len(frames)) * len(fired) // len(frames)] for name, fired in spikes.items()}
        operations = count_operations(self.trained.model, feature_set, 1)
        said = ", ".join(f"{one.keyword} at {one.time_s:.2f} s" for one in found) or "no keyword"
        energy = energy_text(operations.energy_pj)
        sections = [
            _over_time(samples, rate_hz, found),
            figures.waveform_and_mel(
                clip, rate_hz, frames, features.step_ms, word, "you", (features.f_min_hz, features.f_max_hz)
            ),
            *([figures.spike_raster(steps, features.step_ms, word)] if steps else []),
            *energy_report.sections(operations),
        ]
        facts = {
            "keywords": str(len(found)),
            "recording": f"{len(samples) / rate_hz:.1f} s",
            "energy of a clip": energy,
        }
        lead = (
            f"Recognised by {self.name}, whose words are {', '.join(self.trained.class_names)}. Energy: counted "
            "operations of one clip times published prices."
        )
        return Answer(f"{said}. One clip costs {energy}.", page_of(said.capitalize(), lead, sections, facts))

    def detections(self, samples: np.ndarray) -> list[Detection]:
        """The keywords in float32 `[n]` at the rate of the model, in order."""
        spotter = KeywordSpotter(self.trained.model, self.trained.features, self.trained.class_names)
        state, found = spotter.init_state(), list[Detection]()
        for chunk in torch.from_numpy(samples).split(self.trained.features.hop * 10):
            new, state = spotter.step(chunk, state)
            found += new
        return [*found, *spotter.finish(state)]

    @staticmethod
    def _samples(path: Path, rate_hz: int, max_s: float) -> np.ndarray:
        blocks, n = list[np.ndarray](), 0
        for block in stream_audio(path, rate_hz):
            blocks.append(block)
            n += len(block)
            if n > max_s * rate_hz:
                raise ValueError(f"{path.name} is longer than {max_s:g} s; cut it, or start the page with max_s=")
        samples = np.ascontiguousarray(np.concatenate(blocks), dtype=np.float32)
        if not samples.any():
            raise ValueError(f"{path.name} is silent: every sample is 0; check the microphone")
        return samples


def _over_time(samples: np.ndarray, rate_hz: int, found: Sequence[Detection]) -> Section:
    """The envelope of a recording with every keyword at the time it was recognised."""
    bins = min(1200, len(samples))
    peaks = np.maximum.reduceat(np.abs(samples), np.linspace(0, len(samples) - 1, bins).astype(np.int64))
    times_s = np.linspace(0, len(samples) / rate_hz, bins)
    figure = new_figure(WIDTH_IN, 2.6)
    axes = figure.subplots()
    axes.fill_between(times_s, -peaks, peaks, color=palette[0], linewidth=0)
    top = 1.15 * float(peaks.max())
    for number, one in enumerate(found):
        axes.axvline(one.time_s, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(one.time_s, top * (1.05 + 0.22 * (number % 2)), f" {one.keyword}", color=INK, fontsize=10)
    axes.set(xlabel="Time (s)", ylabel="Amplitude", xlim=(0, times_s[-1]), ylim=(-top, top * 1.5))
    rows = [[f"{one.time_s:.2f}", one.keyword, f"{one.confidence:.2f}"] for one in found]
    return Section(
        "Keywords over time",
        "The loudness of the recording, and each keyword where it was recognised: a little after it was spoken, since "
        "the decision waits until no better one follows.",
        figure=figure, table=Table(("time (s)", "keyword", "confidence, 0 to 1"), rows) if rows else None,
    )  # fmt: skip


# --- judging --------------------------------------------------------------------------------------------------------


def judge(file: str | Path | None, noise: str | Path | None, limits: Limits, *, n_permutations: int = 999) -> Answer:
    """Whether decoded sentences show any use of the EEG.

    Args:
        file: decoded and true sentences, below `limits.folder`.
        noise: the same of a control that was trained on noise, or None.
        limits: of files.
        n_permutations: draws of the permutation tests.

    Returns:
        The verdict, and the page.

    Raises:
        ValueError: for a file that cannot be read as decoded sentences.
    """
    path = limits.checked(file, DECODED, "a file of decoded sentences")
    control = limits.checked(noise, DECODED, "the same file of a noise control") if noise else None
    found = score(path, noise=control, n_permutations=n_permutations)
    p = {"sentences in other order": found["p_permutation"], **found["p_differences"]}
    remarks = [remark[:1].upper() + remark[1:] for remark in found["remarks"]]
    rows = [
        ["BLEU-1 to 4, words", *_scores(found["bleu_word"])],
        ["the same of one constant sentence", *_scores(found["constant_sentence_bleu_word"])],
    ]
    sections = [
        Section(
            "The tests", "p: how often chance alone gives such a result. A small p of the first test alone shows that "
            "outputs belong to their sentences; that they come from the EEG takes a noise control.",
            table=Table(("compared with", "p"), [[name, f"{value:.3f}"] for name, value in p.items()]),
        ),
        Section(
            "Scores", "Percent. A decoder that always writes the same frequent sentence gets the second row.",
            table=Table(("score", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"), rows),
        ),
        Section("What to keep in mind", "", text="\n\n".join(remarks) or "Nothing beyond the tests."),
    ]  # fmt: skip
    facts = {
        "sentences": f"{found['sentences']:,}", "distinct outputs": f"{found['distinct_outputs']:,}",
        "p, other order": f"{found['p_permutation']:.3f}", "word error rate": f"{found['wer']:.1f} %",
    }  # fmt: skip
    title = "Does the decoder use the EEG?"
    return Answer(found["verdict"], page_of(title, found["verdict"], sections, facts))


def _scores(values: Sequence[float]) -> list[str]:
    return [f"{value:.2f}" for value in values]


# --- pricing --------------------------------------------------------------------------------------------------------


def chips() -> list[str]:
    """The chips that a page offers."""
    return names("chip")


def price(
    network: str, file: str | Path | None, limits: Limits, *, chip: str = "neuromc", cores: int = 20, batch: int = 16,
    zeros: str = "gating", activity: float = 0.2, shapes: str = "",
) -> Answer:  # fmt: skip
    """Energy, cycles and traffic of one training step.

    Args:
        network: a published network; ignored where a file is given.
        file: workload.json of an export or an ONNX file, below `limits.folder`, or None.
        limits: of files.
        chip: a preset.
        cores: of the chip.
        batch: samples of a step.
        zeros: what the chip does with zero operands: dense, gating or skipping.
        activity: fraction of spikes that are 1, in (0, 1], where a workload has no measured one.
        shapes: of the inputs of an ONNX file that leaves them open, such as 1x3x32x32.

    Returns:
        The energy and time in a line, and the page.

    Raises:
        ValueError: for a choice there is not, or a file that cannot be read.
    """
    if chip not in chips() or zeros not in SPARSITIES:
        raise ValueError(f"chip={chip} zeros={zeros}: use one of {', '.join(chips())}, and of {', '.join(SPARSITIES)}")
    cores, batch = int(cores), int(batch)
    if not (1 <= cores <= MOST_CORES and 1 <= batch <= MOST_BATCH and 0 < activity <= 1):
        raise ValueError(
            f"got cores={cores}, batch={batch}, activity={activity}; use 1 to {MOST_CORES}, 1 to {MOST_BATCH}, and "
            "above 0 up to 1"
        )
    workload = with_activity(_workload(network, file, limits, batch, shapes), activity)
    described = with_counted_pulses(load_chip(ChipConfig(name=chip, cores=cores, sparsity=zeros)), workload.source)
    report = simulate(workload, described)
    cycles = sum(engine.cycles for engine in report.engines)
    said = (
        f"{energy_text(report.energy_per_iteration_pj)}, {duration_text(report.time_per_iteration_ms)} and "
        f"{cycles:,.0f} engine cycles for one training step of {workload.model_name}, "
        f"batch {workload.batch_size}, on {chip} with {counted(cores, 'core')}."
    )
    lead = (
        "Forward pass, back-propagation, weight gradients and update of one batch. Energies are those of the chip "
        "model, not a measurement of silicon. "
        f"Where no activity was measured, {100 * activity:g} % of the spikes are 1."
    )
    return Answer(
        said, page_of(f"{workload.model_name} on {chip}", lead, simulation_sections(report), headline(report))
    )


def _workload(network: str, file: str | Path | None, limits: Limits, batch: int, shapes: str) -> Workload:
    if not file:
        if network not in PUBLISHED:
            raise ValueError(f"network={network} is unknown; use one of {', '.join(PUBLISHED)}, or upload a file")
        return PUBLISHED[network](4, batch)
    path = limits.checked(file, NETWORKS, "workload.json of an export, or an ONNX file")
    if path.suffix.lower() == ".json":
        return with_batch(Workload.from_json(path), batch)
    from spikeloom.accel.interop.onnx_shapes import onnx_workload

    return with_batch(onnx_workload(path, shapes=shapes.strip() or None, axes=None, strict=False), batch)


def with_batch(workload: Workload, batch: int) -> Workload:
    """The same workload with another number of samples a step; layers and MACs scale with it.

    Raises ValueError where the counts of a layer do not divide.
    """
    before = workload.batch_size

    def scaled(layer: Layer) -> Layer:
        counts = {name: getattr(layer, name) * batch for name in COUNTS}
        if layer.batch_size * batch % before or any(count % before for count in counts.values()):
            raise ValueError(f"layer {layer.path} has counts that a batch of {batch} does not give; use {before}")
        return replace(
            layer, batch_size=layer.batch_size * batch // before, **{n: c // before for n, c in counts.items()}
        )

    return replace(workload, batch_size=batch, layers=tuple(map(scaled, workload.layers)))


COUNTS = ("macs_forward", "macs_backward", "macs_weight_gradient")


def with_activity(workload: Workload, activity: float) -> Workload:
    """The same workload with `activity` as the density of spikes wherever none was measured."""
    assumed = Density(mean=activity, min=activity, max=activity)

    def filled(layer: Layer) -> Layer:
        changes: dict[str, Any] = {}
        if layer.input_kind == "spike" and layer.density_input is None:
            changes["density_input"] = assumed
        if layer.neuron is not None and layer.density_spike is None:
            changes["density_spike"] = assumed
        return replace(layer, **changes) if changes else layer

    return replace(workload, layers=tuple(map(filled, workload.layers)))
