"""`spikeloom export`: a trained run -> export/program.pt2, workload.json, unsupported_ops.json."""

import dataclasses
import hashlib
import logging
from pathlib import Path

import torch
from torch import Tensor

from accel.export import Exported, export
from accel.files import whole, write_json
from pipelines.process import set_up
from pipelines.runs import load_config, load_model
from pipelines.schema import ExportConfig
from speech.datamodule import Draw, FeatureSet, featurise

log = logging.getLogger("spikeloom")
LOOKED_AT = 8  # clips for each one that is measured


def run(config: ExportConfig) -> None:
    set_up()
    folder = Path(config.run)
    trained, trained_with = load_model(folder / "model"), load_config(folder)
    features = featurise(trained_with.data.build().valid, trained.features.build())
    batches = unpadded_batches(features, config.batches, config.batch_size)
    exported = export(
        trained.model, batches, name=trained_with.name, strict=config.strict,
        source={"densities": f"{len(batches)} batches of validation clips, {batches[0].shape[0]} steps, no padding"},
    )  # fmt: skip
    write(exported, folder / "export")


def unpadded_batches(features: FeatureSet, n: int, batch_size: int) -> list[Tensor]:
    """Up to `n` batches [T, B, N] of speech without padding: T is the median length, longer clips are cropped to it.

    Of a large set only some clips are looked at, evenly spread.
    """
    if n < 1 or batch_size < 2:
        raise ValueError(f"got batches={n} of batch_size={batch_size}; use at least 1 of 2")
    n_looked_at = min(len(features), LOOKED_AT * n * batch_size)
    looked_at = torch.arange(n_looked_at) * len(features) // n_looked_at
    _, lengths, _, ids = features[Draw(0, looked_at)]
    steps = int(lengths.median())
    whole_clips = ids[lengths >= steps]
    size = min(batch_size, len(whole_clips))
    if size < 2:
        raise ValueError(f"got {len(features)} clips, {size} of median length or longer; use a set of at least 3")
    groups = whole_clips[: n * size // size * size].split(size)
    batches = [features[Draw(0, group)].features[:, :steps] for group in groups if len(group) == size]
    return [batch.transpose(0, 1).contiguous() for batch in batches[:n]]


def write(exported: Exported, folder: Path) -> None:
    """Write the three files; the folder appears whole."""
    program = exported.program_bytes()
    workload = dataclasses.replace(
        exported.workload, source={**exported.workload.source, "program_sha256": hashlib.sha256(program).hexdigest()}
    )
    with whole(folder) as partial:
        partial.mkdir(parents=True)
        (partial / "program.pt2").write_bytes(program)
        workload.to_json(partial / "workload.json")
        write_json(partial / "unsupported_ops.json", [dataclasses.asdict(u) for u in workload.unsupported])
    macs = sum(layer.macs_forward for layer in workload.layers)
    log.info(
        "%d layers, %.1f M MACs a clip, %d unsupported operations -> %s",
        len(workload.layers), macs / workload.batch_size / 1e6, len(workload.unsupported), folder,
    )  # fmt: skip
