"""Import of networks from the Graph Challenge, matrices, safetensors files and scikit-learn models."""
