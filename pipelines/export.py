"""`spikeloom export`: a trained run -> export/program.pt2, workload.json, unsupported_ops.json."""

import dataclasses
import hashlib
import logging
from pathlib import Path

from torch import Tensor

from accel.export import Exported, export
from accel.files import whole, write_json
from pipelines.process import set_up
from pipelines.runs import load_config, load_model
from pipelines.schema import ExportConfig
from speech.datamodule import FeatureSet, featurise

log = logging.getLogger("spikeloom")


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
    """Up to `n` batches [T, B, N] of speech without padding: T is the median length, longer clips are cropped to it."""
    steps = int(features.lengths.median())
    whole_clips = (features.lengths >= steps).nonzero().squeeze(1)
    size = min(batch_size, len(whole_clips))
    if size < 2 or n < 1:
        raise ValueError(
            f"got batches={n} of batch_size={batch_size} from {len(whole_clips)} clips; use at least 1 of 2"
        )
    groups = whole_clips[: n * size // size * size].split(size)
    return [features.features[ids, :steps].transpose(0, 1).contiguous() for ids in groups if len(ids) == size][:n]


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
