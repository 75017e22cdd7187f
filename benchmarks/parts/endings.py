"""What a search's journal says of the ends of its trials."""

import json
from collections import Counter
from pathlib import Path

from optuna.trial import TrialState

SET_STATE_AND_VALUES = 6  # what a line of Optuna's journal does


def endings_told(experiment: Path) -> Counter[int]:
    """How often the journal says of each trial that it ended."""
    told: Counter[int] = Counter()
    for line in (experiment / "optuna.journal").read_text().splitlines():
        entry = json.loads(line)
        if entry["op_code"] == SET_STATE_AND_VALUES:
            told[entry["trial_id"]] += TrialState(entry["state"]).is_finished()
    return +told
