"""What Ray has written down of a search's trials."""

import json
from collections import Counter
from pathlib import Path

from deepmlf.tune.experiment.layout import RAY, RAY_RECORDS
from deepmlf.tune.worker.wire import number_of


def ended_in_ray(experiment: Path) -> Counter[int]:
    """Ray's own records, those of all drivers together: how often each trial number is down as ended."""
    ended: Counter[int] = Counter()
    for path in (experiment / RAY).glob(RAY_RECORDS):
        try:
            dumped = json.loads(path.read_text())["trial_data"]
        except (ValueError, KeyError):
            continue  # torn by a kill: what it held counts as not recorded
        for trial in (json.loads(data) for data, _ in dumped):
            ended[number_of(trial["config"])] += trial["status"] in ("TERMINATED", "ERROR")
    return +ended
