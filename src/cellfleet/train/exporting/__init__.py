"""From a trained network to ONNX: the graph contract, parity, the portable form."""
