"""`spikeloom audit run=DIR`: what a trained model's layers see, where it fires, and what an inference costs.

audit/audit.json   verdict, exceptions, and every figure of audit/audit.html
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from accel.files import check_replaceable, whole, write_json
from accel.report import Section, render
from pipelines.domains import data_at, domain_of, room_of
from pipelines.process import set_up
from pipelines.runs import TrainedModel, load_config, load_model
from pipelines.schema import AuditConfig, TrainConfig

log = logging.getLogger("spikeloom")


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What is written: `values` as JSON, the rest as a page. `lines` go to the console."""

    values: dict[str, Any]
    lead: str
    facts: Mapping[str, str]
    sections: Sequence[Section]
    lines: Sequence[str]


def run(config: AuditConfig) -> None:
    set_up()
    if config.batches < 1 or config.batch_size < 1:
        raise ValueError(f"got batches={config.batches} of batch_size={config.batch_size}; use at least 1 of each")
    folder = Path(config.run)
    trained, trained_with = load_model(folder / "model"), load_config(folder)
    trained_with = replace(trained_with, data=data_at(trained_with.data, config.data.root))
    room = room_of(trained_with.data)
    audits = {"vision": audit_vision, "speech": audit_speech}
    if room not in audits:
        raise ValueError(f"run={folder} is a model of {room}; audit knows those of {' and '.join(audits)}")
    out = Path(config.out) if config.out else folder / "audit"
    check_replaceable(out, ("audit.json", "audit.html"))
    found = audits[room](trained, trained_with, config)
    with whole(out) as partial:
        partial.mkdir(parents=True)
        write_json(partial / "audit.json", {"run": str(folder), "name": trained_with.name, **found.values})
        render(f"Audit of {trained_with.name}", found.lead, found.sections, partial / "audit.html", found.facts)
    print("\n".join(found.lines))
    log.info("-> %s", out / "audit.html")


def audit_vision(trained: TrainedModel, trained_with: TrainConfig, config: AuditConfig) -> Audit:
    """Purity, operations by both ways of counting, and energy, over validation samples."""
    from vision import audit
    from vision.energy import count_operations
    from vision.spiking_transformer import SpikingTransformer

    if not isinstance(trained.model, SpikingTransformer):
        raise ValueError(
            f"audit of pictures knows the layers of a spiking transformer, not of a {type(trained.model).__name__}; "
            "give a run of one, or use evaluate for operations and energy"
        )
    batches, what = domain_of(trained_with.data).example_batches(
        trained, trained_with, config.batches, config.batch_size
    )
    found = count_operations(trained.model, [still(b) for b in batches], count_encoder_once=config.count_encoder_once)
    values = {"data": what, **found.as_dict()}
    lead = f"{audit.verdict_in_words(found)}\n\nMeasured on {what}, {found.T} steps each."
    facts = audit.facts(found, trained.model)
    lines = [audit.verdict_in_words(found), *(f"  {label}: {value}" for label, value in facts.items())]
    lines.append(f"  AC {found.total('exact_ac'):,.0f}, MAC {found.total('exact_mac'):,.0f} (event by event)")
    lines.append(f"  AC {found.total('formula_ac'):,.0f}, MAC {found.total('formula_mac'):,.0f} (published formula)")
    return Audit(values=values, lead=lead, facts=facts, sections=audit.sections(found), lines=lines)


def still(frames: Tensor) -> Tensor:
    """A picture [B, C, H, W] where frames [T, B, C, H, W] show the same one at every step, else the frames."""
    return frames[0] if frames.dim() == 5 and bool((frames == frames[:1]).all()) else frames


def audit_speech(trained: TrainedModel, trained_with: TrainConfig, config: AuditConfig) -> Audit:
    """Inputs of every layer and operations of SpikeSCR, over validation clips."""
    from speech import audit
    from speech.batches import featurise
    from speech.energy import count_operations

    if config.count_encoder_once:
        raise ValueError("count_encoder_once=true is for pictures; the frames of a clip differ, so leave it false")
    clips = featurise(trained_with.data.build().valid, trained.features.build())
    found = count_operations(trained.model, clips, config.batches * config.batch_size)
    what = f"{found.n_clips} validation clips"
    verdict, facts = audit.verdict_in_words(audit.purity(found)), audit.facts(found)
    return Audit(
        values={"data": what, **audit.as_dict(found)}, lead=f"{verdict}\n\nMeasured on {what}.", facts=facts,
        sections=audit.sections(found), lines=[verdict, *(f"  {label}: {value}" for label, value in facts.items())],
    )  # fmt: skip
