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
            trials = [json.loads(data) for data, _ in json.loads(path.read_text())["trial_data"]]
            states = [(number_of(trial["config"]), trial["status"]) for trial in trials]
        except (ValueError, KeyError, TypeError):
            continue  # torn by a kill, or damaged: what it held counts as not recorded
        for number, state in states:
            ended[number] += state in ("TERMINATED", "ERROR")
    return +ended
