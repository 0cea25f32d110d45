"""Phantoms: published dataset layouts on disk, with pixels rendered from parametric patients.

Importing this package costs nothing heavy; its modules import torch.
"""
