"""`spikeloom pretrain`: CET-MAE on EEG and text of trials -> a run folder that decoders inherit from."""

from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.domains import HasPretraining, adapter_of


def run(config: TrainConfig) -> None:
    domain = adapter_of(config)
    if not (isinstance(domain, HasPretraining) and domain.is_pretraining(config)):
        raise ValueError(
            f"model {config.model.kind} is not pre-trained; use experiment=cet_mae_synthetic or cet_mae_zuco"
        )
    domain.train(config)
