"""Batch norm over the samples of all processes that train together, on any device.

PyTorch's SyncBatchNorm runs on GPUs alone. Here the norms of our own know what to join (`batch_norm`), and a plain
`nn.BatchNorm2d` becomes one of rows. Without a group of processes nothing changes.
"""

from torch import Tensor, nn

from spikeloom.accel.spiking.batch_norm import batch_norm_of_rows, count_batch, processes


class JointBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` of [B, C, H, W], in training by the statistics of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.running_var is None or processes() == 1:
            return super().forward(x)
        rows = x.permute(0, 2, 3, 1).flatten(0, 2)  # [B*H*W, C]
        y, mean, var, n = batch_norm_of_rows(rows, self.weight, self.bias, self.eps, joint=True)
        count_batch(self, mean, var, n)
        return y.view(x.shape[0], *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)


def synchronise(model: nn.Module) -> int:
    """Have every batch norm of `model` count the samples of all processes; its weights and their names stay.

    Args:
        model: changed in place.

    Returns:
        How many norms there are.

    Raises:
        ValueError: a norm of another class, which would go on counting its own samples; names it.
    """
    found = 0
    for name, norm in model.named_modules():
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            continue
        if type(norm) is nn.BatchNorm2d:
            norm.__class__ = JointBatchNorm2d
        elif hasattr(norm, "joint"):
            setattr(norm, "joint", True)  # noqa: B010, of two classes
        elif type(norm) is not JointBatchNorm2d:
            raise ValueError(
                f"trainer.sync_batchnorm=true does not know {name} ({type(norm).__name__}); use an nn.BatchNorm2d or a "
                "norm of spikeloom.accel.spiking"
            )
        found += 1
    return found
