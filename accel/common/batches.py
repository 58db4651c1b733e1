"""Batches of any domain: which samples, in which order, and how much memory may be kept.

The order of a training epoch depends on (seed, epoch) alone, so a run resumed at epoch k sees exactly the batches of
one that was never interrupted, with any number of loader workers. A set is indexed by a whole batch (`BatchIndex`);
what the batch holds is up to the domain.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, get_worker_info

from spikeloom.accel.common.changes import changes

CACHE_MB = 2000.0  # memory for the features or frames of one data module, unless configured otherwise

# (seed, epoch, number of samples) -> int64 [n], the order of an epoch
Permutation = Callable[[int, int, int], Tensor]


class BatchIndex(NamedTuple):
    """What a sampler hands to a set: which samples (int64 `[B]`), in which epoch."""

    epoch: int
    sample_ids: Tensor


class CacheBudget:
    """Bytes that may still be kept; the sets of one data module share one budget."""

    def __init__(self, megabytes: float) -> None:
        if not megabytes >= 0:
            raise ValueError(f"trainer.cache_mb={megabytes} must be >= 0; use 0 for no cache")
        self.free_bytes = int(megabytes * 1e6)

    def take(self, n_bytes: int) -> bool:
        """Whether there was room."""
        fits = n_bytes <= self.free_bytes
        if fits:
            self.free_bytes -= n_bytes
        return fits


class IndexedSet(Protocol):
    """A set that is indexed by a whole batch. One that keeps what it made has a `budget`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: BatchIndex) -> Any: ...


def evenly_spread(n: int, wanted: int) -> Tensor:
    """int64 [min(n, wanted)]: positions from first to last in a set of `n`, which may lie sorted by class."""
    return torch.linspace(0, n - 1, min(n, wanted)).round().long()


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """A random order from torch's generator."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


class EpochBatches(Sampler[BatchIndex]):
    """Batches of sample ids, shuffled by (seed, epoch) or in order; Lightning calls `set_epoch` before each epoch.

    Args:
        n_samples: size of the set.
        batch_size: samples a batch.
        seed: of the order.
        shuffle: in order when false.
        drop_last: leave out, in every epoch, the samples that do not fill a batch (other ones every time).
        order: how an epoch is shuffled.
        rank, world: of `world` processes that train together, this one takes its part of every batch of
            `batch_size * world` samples: each sample goes to one process, and together they see the batches that one
            process would see with the larger batch size. A remainder that is too small for all joins the batch before.
    """

    def __init__(
        self, n_samples: int, batch_size: int, *, seed: int, shuffle: bool, drop_last: bool = False,
        order: Permutation = permutation, rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        if batch_size < 1 or (drop_last and n_samples < batch_size * world):
            most = f"1 to {n_samples // world}" if drop_last else "at least 1, for example 32"
            raise ValueError(f"trainer.batch_size={batch_size} does not fit {n_samples} samples; use {most}")
        if n_samples < world:  # a process without a batch would leave the others waiting for it
            raise ValueError(
                f"a set of {n_samples} sample{'s' * (n_samples != 1)} cannot be shared by {world} processes; use more "
                f"samples (of training or validation), or trainer.devices={max(1, n_samples)}"
            )
        self.n_samples, self.batch_size, self.seed, self.shuffle = n_samples, batch_size, seed, shuffle
        self.drop_last, self.order, self.epoch = drop_last, order, 0
        self.rank, self.world = rank, world

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(self.n_samples, self.batch_size * self.world)
        return whole if self.drop_last or (whole and rest < self.world) else whole + (rest > 0)

    def __iter__(self) -> Iterator[BatchIndex]:
        shuffled = self.order(self.seed, self.epoch, self.n_samples) if self.shuffle else torch.arange(self.n_samples)
        together = list(shuffled.split(self.batch_size * self.world))
        if not self.drop_last and len(together) > len(self):  # fewer samples than processes are left
            together[-2:] = [torch.cat(together[-2:])]
        for sample_ids in together[: len(self)]:
            if len(own := sample_ids.tensor_split(self.world)[self.rank]):
                yield BatchIndex(self.epoch, own)


def batch_loader(
    samples: IndexedSet, *, batch_size: int, seed: int, shuffle: bool, num_workers: int = 0, drop_last: bool = False,
    order: Permutation = permutation, rank: int = 0, world: int = 1,
) -> DataLoader[Any]:  # fmt: skip
    """Loader of such a set. Workers live through all epochs, and so keep what they made, within their part of the
    budget."""
    return BatchLoader(
        samples,  # type: ignore[arg-type]
        sampler=EpochBatches(
            len(samples), batch_size, seed=seed, shuffle=shuffle, drop_last=drop_last, order=order,
            rank=rank, world=world,
        ),
        batch_size=None,  # the sampler already hands out whole batches, nothing is left to collate
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        worker_init_fn=start_worker,
        collate_fn=with_changes if num_workers else None,
    )  # fmt: skip


class BatchLoader(DataLoader[Any]):
    """A `DataLoader` that adds the changes to recordings which its workers counted to those of this process."""

    def __iter__(self) -> Any:
        batches = super().__iter__()
        return self._received(batches) if self.num_workers else batches

    @staticmethod
    def _received(batches: Iterator[Any]) -> Iterator[Any]:
        for batch, counted in batches:
            changes.receive(counted)
            yield batch


def with_changes(batch: Any) -> tuple[Any, list[tuple[str, str]]]:
    """In a worker: the batch, and the changes counted since the one before."""
    return batch, changes.take()


def start_worker(worker_id: int) -> None:
    """In a worker: counts begin at 0, and its part of the cache; half of the whole is for the other loader, of
    training or validation."""
    changes.clear()
    worker = get_worker_info()
    assert worker is not None
    budget = getattr(worker.dataset, "budget", None)
    if budget is not None:
        budget.free_bytes //= 2 * worker.num_workers
