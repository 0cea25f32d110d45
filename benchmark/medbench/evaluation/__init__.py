"""From features and predictions to metrics: one file per task type and adaptation."""
