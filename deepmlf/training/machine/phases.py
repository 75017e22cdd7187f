"""What an epoch's seconds are reported of, as in ``time/data_seconds``."""

from typing import Literal

Phase = Literal["data", "forward", "backward", "optimizer", "train", "validation", "checkpoint"]
PHASES: tuple[Phase, ...] = ("data", "forward", "backward", "optimizer", "train", "validation", "checkpoint")
