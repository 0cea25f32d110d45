"""Sweeps: the cells of a matrix as a graph of stages, each done once, by many workers."""
