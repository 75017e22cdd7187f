"""Search spaces: one module each, with ``space(trial)``, ``BASE`` and ``PRIORS``."""
