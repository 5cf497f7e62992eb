"""ONNX Runtime as a backend: translations of operators, models, and how they run."""
