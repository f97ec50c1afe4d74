"""What several tests need: a small model of our own, and processes that are killed."""
