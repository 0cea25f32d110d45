"""The leaderboards as static pages: a pure function of records, opened from disk or served."""
