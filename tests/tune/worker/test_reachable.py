"""What a worker opens before it trains: a node with another language model of the same name stops the search."""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from deepmlf.config.trial import TrialConfig
from deepmlf.errors import PlaceError
from deepmlf.model import lm_store
from deepmlf.tune.messages import SearchHalted, TrialOrder
from deepmlf.tune.worker.trainable import halt_of, reachable
from tests.model.small_lm import make_folder
from tests.tune.parts import TERMS


def order_of(data: Path, lm: Path, fingerprint: str | None) -> TrialOrder:
    config = TrialConfig.from_overrides({"data.path": str(data), "model.language_model": str(lm)})
    known = {} if fingerprint is None else {str(lm): fingerprint}
    terms = TERMS.model_copy(update={"language_models": known})
    return TrialOrder(number=0, config=config, overrides={}, terms=terms)


def test_the_language_model_must_be_the_searchs(small_data: Path, tmp_path: Path) -> None:
    lm = make_folder(tmp_path / "lm")
    fingerprint = lm_store.fingerprint(str(lm))
    order = order_of(small_data, lm, fingerprint)
    assert reachable(order) == order.config
    weights = load_file(lm / "model.safetensors")
    weights["transformer.wte.weight"][0, 0] += 1.0
    save_file(weights, lm / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PlaceError, match="lm is not the language model that first began with") as caught:
        reachable(order)
    assert isinstance(halt_of(caught.value), SearchHalted)
    older = order_of(small_data, lm, None)
    assert reachable(older) == older.config
