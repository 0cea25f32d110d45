"""Leaderboards: a pure, byte-reproducible function of a directory of records."""
