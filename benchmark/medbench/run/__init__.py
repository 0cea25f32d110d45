"""From a request to a record: resolve, load, fit, predict, score, record."""
