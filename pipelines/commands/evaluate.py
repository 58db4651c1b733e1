"""`spikeloom evaluate`: score a trained model on one of its splits, or on a folder of other samples; writes JSON."""

from pathlib import Path

from spikeloom.pipelines.api.evaluation import evaluate_run
from spikeloom.pipelines.config.evaluate import EvaluateConfig
from spikeloom.pipelines.domains import adapter_of
from spikeloom.pipelines.training.run_dir import load_config
from spikeloom.pipelines.training.runtime import set_up


def run(config: EvaluateConfig) -> None:
    set_up()
    found = evaluate_run(config)
    adapter_of(load_config(Path(config.run))).print_summary(found)
