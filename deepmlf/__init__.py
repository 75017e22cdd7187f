"""Hyperparameter search for DeepMLF (arXiv:2504.11082), with Ray Tune and Optuna."""

__version__ = "0.1.0"
