"""Keys of `spikeloom convert`."""

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class ConvertConfig:
    checkpoint: str = MISSING  # released weights: .safetensors, .pth, .tar
    out: str = MISSING  # folder of the run that is written
    # also model=…: one of spikeloom.vision.models.variants, or a family with heads; null: found by the sizes
    network: str | None = None
    heads: int | None = None  # of the attention; not in the weights; null: those of the network
    tau: float | None = None  # membrane time constant; not in the weights; null: that of the network
    T: int | None = None  # time steps an image is shown; null: those of the network
    classes: str | None = None  # text file with a class a line, in the order of the classifier; null: known, or numbers
    weights: str | None = None  # ema or plain, where a file holds averaged weights too; null: averaged if there are any
    tokenizer: str | None = None  # of CET-MAE, E2T-PTR: folder of its tokenizer; null: $SPIKELOOM_DATA/tokenizer/bart
    pretrained: str | None = (
        None  # of E2T-PTR: run of the CET-MAE it inherits from, where controls start; null: unknown
    )
    connect: str | None = None  # add, and or iand, of a SEW-ResNet; not in the weights; null: add
