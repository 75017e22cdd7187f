"""What a search's journal says of the ends of its trials."""

import json
from collections import Counter
from pathlib import Path

from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState


def endings_told(experiment: Path) -> Counter[int]:
    """How often the journal says of each trial that it ended."""
    told: Counter[int] = Counter()
    for line in (experiment / "optuna.journal").read_text().splitlines():
        entry = json.loads(line)
        if entry["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES:
            told[entry["trial_id"]] += TrialState(entry["state"]).is_finished()
    return +told
