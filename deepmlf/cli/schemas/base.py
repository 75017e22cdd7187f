"""What the objects that commands print have in common."""

from pydantic import BaseModel, ConfigDict

Metrics = dict[str, float | None]
"""Values by name, as ``MAE`` or ``Corr``."""
Count = dict[str, int]
"""Numbers of trials by state, or of utterances by split."""


class Said(BaseModel):
    """One JSON object."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
