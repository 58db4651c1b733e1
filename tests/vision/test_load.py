"""Every kind of network of vision is loaded from the folder it was written to."""

from pathlib import Path

import pytest
import torch

from spikeloom.vision.models.load import load_model
from spikeloom.vision.models.variants import create_model


@pytest.mark.parametrize("name", ["sew_resnet18", "resnet18", "mobilenet_v1", "ms_qkformer_digits", "maxformer_4_384"])
def test_every_kind_of_network_is_loaded_from_its_folder(name: str, tmp_path: Path) -> None:
    options = {"widths": (8, 16, 16), "heads": 4, "depths": (1, 1, 1)} if "former" in name else {}
    options |= {"widths": (8, 8, 8, 8)} if "resnet" in name else {"width": 0.1} if "mobile" in name else {}
    model = create_model(name, num_classes=3, **options).eval()
    model.save_pretrained(tmp_path)
    x = torch.randn(1, model.in_chans, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(x), model(x))
