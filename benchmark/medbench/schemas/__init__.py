"""Typed, validated, versioned documents: specs, task files, records."""
