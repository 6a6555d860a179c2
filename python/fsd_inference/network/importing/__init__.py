"""Import of networks from matrices, safetensors files, ONNX models and scikit-learn models."""
