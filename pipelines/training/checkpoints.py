"""Checkpoints on disk: written whole or not at all, and read only when every record has its checksum.

Lightning's own writer holds a checkpoint twice in memory and moves it out of the system's temporary folder, which may
be on another disk; this one writes beside the target, flushes it to the disk, and renames.
"""

import os
import secrets
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from spikeloom.accel.common.files import brief, naming_full_disks, sync_folder


class AtomicCheckpointIO(TorchCheckpointIO):
    """A kill at any moment leaves the previous checkpoint or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        try:
            with naming_full_disks(target), partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(target.parent)


def read_checkpoint(path: Path, remedy: str) -> dict[str, Any]:
    """A checkpoint on the CPU.

    Raises:
        ValueError: it is missing, a record does not match its CRC-32 (one flipped bit does), or it holds anything but
            tensors and plain values; names the file and the remedy.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; {remedy}")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"record {damaged} does not match its checksum")
        stored: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise ValueError(f"{path} is damaged ({brief(error)}); {remedy}") from error
    return stored
