"""A trained model as ONNX and as NIR, for other runtimes and other chips. Needs `pip install 'spikeloom[onnx,nir]'`."""

from pathlib import Path

from spikeloom.pipelines.cli import main

main(["export", "run=builtin:digits", "onnx=true", "nir=true", "batch_size=4"])
for file in sorted(Path("runs/builtin/digits/export").iterdir()):
    print(f"{file.name:24s} {file.stat().st_size:9,d} bytes")
