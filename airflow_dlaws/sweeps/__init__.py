"""Hyperparameter sweeps: what may be tried, what to try next, what to stop, and how it ended. Decisions, no I/O."""
