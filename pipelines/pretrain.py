"""`spikeloom pretrain`: CET-MAE on EEG and text of readings -> a run folder that decoders inherit from."""

from bci.recipes import CETMAERecipe
from pipelines.reading_runs import pretrain
from pipelines.schema import TrainConfig


def run(config: TrainConfig) -> None:
    if not isinstance(config.model, CETMAERecipe):
        raise ValueError(
            f"model {config.model.kind} is not pre-trained; use experiment=cet_mae_synthetic or cet_mae_zuco"
        )
    pretrain(config)
