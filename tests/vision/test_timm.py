"""timm finds the variants under their names, where it is installed; without it nothing is missed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AGREE = """
import torch
try:
    import torchvision
except RuntimeError:  # its compiled operators belong to another torch; timm's models do not use them
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import timm
import spikeloom.vision.models.timm_models
from spikeloom.vision.models.variants import create_model, list_models
names = spikeloom.vision.models.timm_models.register()
assert names == list_models() and set(names) <= set(timm.list_models())
assert spikeloom.vision.models.timm_models.register() == names
torch.manual_seed(0)
theirs = timm.create_model("ms_qkformer_digits", num_classes=7).eval()
torch.manual_seed(0)
ours = create_model("ms_qkformer_digits", num_classes=7).eval()
x = torch.randn(2, 1, 16, 16)
assert torch.equal(theirs(x), ours(x))
assert timm.create_model("spikingformer_digits", drop_path_rate=0.1).num_classes == 10
"""


def test_models_work_without_timm() -> None:
    code = """
import sys
sys.modules["timm"] = None
from spikeloom.vision.models.variants import create_model, list_models
import torch, spikeloom.vision.models.timm_models
with torch.device("meta"):
    assert all(create_model(name) for name in list_models("*digits"))
try:
    spikeloom.vision.models.timm_models.register()
except ImportError as error:
    assert "pip install timm" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_timm_makes_the_same_models() -> None:
    """In this environment if timm is here, else in the one whose python SPIKELOOM_TIMM_PYTHON names."""
    python = os.environ.get("SPIKELOOM_TIMM_PYTHON")
    if python is None and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed here and SPIKELOOM_TIMM_PYTHON names no other environment")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([python or sys.executable, "-c", AGREE], check=True, cwd=ROOT, env=environment)
