"""Keys of `spikeloom push`."""

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class PushConfig:
    run: str = MISSING  # run directory of a trained model
    repo: str = MISSING  # ORGANISATION/NAME on the Hugging Face Hub; made where it does not exist
    license: str = MISSING  # of the weights, such as apache-2.0 or cc-by-4.0: what the training data permit
    revision: str | None = None  # branch; null: main
    private: bool = False  # of a repository that is made
    message: str = "Upload a model trained with spikeloom"  # of the commit
