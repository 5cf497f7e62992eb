"""PyTorch: an operator of `torch.library`, and the functions through which eager calls go."""
