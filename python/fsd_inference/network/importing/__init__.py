"""Networks from other people's files and models: matrices, safetensors and scikit-learn, one source a file."""
