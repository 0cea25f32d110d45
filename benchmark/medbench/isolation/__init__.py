"""Plugins in an environment and a process of their own, spoken to over pipes."""
