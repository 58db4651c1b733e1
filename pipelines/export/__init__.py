"""An export on disk: program, workload, and the optional NIR and ONNX files."""
