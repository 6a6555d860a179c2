"""Import of networks from the Graph Challenge, matrices, safetensors files, ONNX models and scikit-learn models."""
