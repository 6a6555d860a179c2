"""Import of networks from matrices, safetensors files and scikit-learn models."""
