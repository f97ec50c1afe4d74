"""The pipelines: they only compose components."""
