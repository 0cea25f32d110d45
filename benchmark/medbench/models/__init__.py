"""Capability protocols, checkpoints and building blocks that plugins share."""
