"""`spikeloom train`: any model of any domain, into a run directory; seeds found beside it end in one table."""

from dataclasses import replace
from pathlib import Path

from spikeloom.accel.common.files import write_json
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.domains import adapter_of
from spikeloom.pipelines.reports.seeds import print_seed_table
from spikeloom.pipelines.training.launch import is_first


def run(config: TrainConfig) -> None:
    if config.leave_one_speaker_out:
        train_each_speaker_out(config)
        return
    adapter = adapter_of(config)
    adapter.train(config)
    if is_first() and not config.trainer.fast_dev_run:
        adapter.print_table(config)


def train_each_speaker_out(config: TrainConfig) -> None:
    """One training per speaker, tested on the speaker left out; prints every seed found beside this one."""
    if not hasattr(config.data, "test_speaker"):
        raise ValueError(
            f"leave_one_speaker_out is not defined for {config.data.source} data, whose split is given; use data=fsdd "
            "or spikes, or leave_one_speaker_out=false"
        )
    if config.trainer.ckpt_path is not None:
        raise ValueError(
            "trainer.ckpt_path goes on with one training, and leave_one_speaker_out=true makes one for each speaker; "
            "add resume=true instead"
        )
    results = [
        adapter_of(config).train(
            replace(config, run=f"{config.run}/{speaker}", data=replace(config.data, test_speaker=speaker))
        )
        for speaker in config.data.load().speaker_names()
    ]
    if config.trainer.fast_dev_run or not is_first():
        return
    write_json(Path(config.run) / "speakers.json", {"seed": config.seed, "results": results})
    print_seed_table(Path(config.run), "speakers.json")
