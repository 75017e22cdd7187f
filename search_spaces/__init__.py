"""Search spaces: one module each, with ``space(trial, lm)``, ``BASE`` and ``PRIORS``.

``_common`` is what they share.
"""
