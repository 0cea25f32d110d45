"""One writer per dataset: the real on-disk layout, filled with rendered pixels."""
