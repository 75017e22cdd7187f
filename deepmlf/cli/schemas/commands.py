"""What each command prints with `--json`. Numbers that are undefined (NaN, infinite) are null.

`docs/schemas.json` has the same as JSON Schema, by command. Fields are never taken away or given another meaning within
a major version; new ones may come.
"""

import json
from typing import Any

from deepmlf.cli.schemas.base import Said
from deepmlf.cli.schemas.data import Dataset, Extracted, Imported, LanguageModel, OwnMetrics, Synthetic
from deepmlf.cli.schemas.experiments import Analysed, Copied, Searched, Served, Stopped, Verdict
from deepmlf.cli.schemas.machine import Examined
from deepmlf.cli.schemas.trials import Evaluated, Explained, Exported, Predicted, ReferenceImported, Trained

BY_COMMAND: dict[str, type[Said]] = {
    "data import": Imported, "data metrics": OwnMetrics, "data extract": Extracted, "data synthetic": Synthetic,
    "data info": Dataset, "lm get": LanguageModel, "train": Trained, "search": Searched, "resume": Searched,
    "stop": Stopped, "copy": Copied, "confirm": Verdict, "analyze": Analysed, "watch": Served, "tensorboard": Served,
    "evaluate": Evaluated, "export": Exported, "predict": Predicted, "explain": Explained,
    "import-reference": ReferenceImported, "doctor": Examined,
}  # fmt: skip
"""The object that each command prints."""


def json_schemas() -> dict[str, Any]:
    """JSON Schema of what each command prints, by command; see ``docs/schemas.json``."""
    return {command: said.model_json_schema() for command, said in BY_COMMAND.items()}


if __name__ == "__main__":
    print(json.dumps(json_schemas(), indent=1))
