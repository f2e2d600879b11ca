"""Hyperparameter tuning jobs: what CreateHyperParameterTuningJob and its siblings do."""
