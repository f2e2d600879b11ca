"""Data that come in months: which of them a run is about, and which bytes it has read."""
