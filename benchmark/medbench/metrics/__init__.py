"""Metrics: one file per family, each metric with its identity card."""
