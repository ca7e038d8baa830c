"""The pretrained model that a job fine-tunes: from the channel `model`, a folder, or the hub where there is network."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from mooring.artifact.archive import extract
from mooring.artifact.publish import publish_into
from mooring.contract.channels import Channel
from mooring.contract.errors import HyperparameterError, UserCodeError
from mooring.handler.defaults.transformers_rows import token_limit
from mooring.handler.resolve import model_root
from mooring.training.distributed import Group
from mooring.training.initial_weights import MODEL_CHANNEL, model_folder

from .labels import Labels
from .settings import Settings

logger = logging.getLogger(__name__)

# What configuration, tokenizer and weights are called; nothing of a repository's folders, nothing that is code.
HUB_FILES = ["*.json", "*.txt", "*.model", "*.spm", "*.tiktoken", "*.safetensors"]
HUB_PICKLES = ["pytorch_model*.bin", "pytorch_model*.json"]
FOLDERS = "*/*"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
# Attention costs the square of this, and few texts to be classified say more.
USUAL_MAX_LENGTH = 512
CLASSIFIER = "ForSequenceClassification"
# Layers between a model and its classifier, which models for other tasks come without.
MISSING_OFTEN = ("pooler", "pooling", "sequence_summary")
TENSORS_SHOWN = 5
DEFAULT_LABEL = "LABEL_"


class PretrainedModelError(UserCodeError):
    """The model to begin with is not there, damaged, or of a kind that classifies no texts."""


@contextmanager
def pretrained_folder(channels: Mapping[str, Channel], settings: Settings, group: Group) -> Iterator[Path]:
    """Give the folder of the model to begin with; an archive is unpacked, or the hub asked, once on each host.

    Raises `PretrainedModelError`, `HyperparameterError`, `InputModeError`, `UnsafeArchiveError`, `DamagedArchiveError`.
    """
    with tempfile.TemporaryDirectory(prefix="mooring-model-") as beside:
        mine = _find(channels, settings, Path(beside)) if group.local_rank == 0 else None
        found: list[Path | None] = [None] * group.world_size
        dist.all_gather_object(found, mine)
        folder = found[group.rank - group.local_rank]
        assert folder is not None
        yield folder
        dist.all_gather_object(found, None)  # others may still read what goes with this block


def _find(channels: Mapping[str, Channel], settings: Settings, beside: Path) -> Path:
    name = settings.model_name_or_path
    if name is not None and Path(name).is_dir():
        return model_root(Path(name))
    if MODEL_CHANNEL in channels:
        if name is not None:
            problem = f"expected none, since there is a channel '{MODEL_CHANNEL}', or the folder of a channel"
            raise HyperparameterError([f"Hyperparameter 'model_name_or_path' is \"{name}\"; {problem}."])
        return _in_channel(model_folder(channels), beside)
    if name is not None:
        return _fetched(name, settings.model_revision)
    given = ", ".join(f"'{channel}'" for channel in sorted(channels)) or "none"
    raise PretrainedModelError(
        f"There is no model to begin with. Give the job a channel '{MODEL_CHANNEL}' with a transformers model (folder "
        "or model.tar.gz with config.json, model.safetensors and tokenizer). With network, the hyperparameter "
        f"'model_name_or_path' may name one of the hub instead. The channels given are: {given}."
    )


def _in_channel(folder: Path, beside: Path) -> Path:
    archives = sorted(folder.glob("*.tar.gz"))
    if archives and not (model_root(folder) / "config.json").is_file():
        extract(archives[0], beside / "model")
        folder = beside / "model"
    return model_root(folder)


def _fetched(name: str, revision: str) -> Path:
    """Return the folder of a model that the hub has, or that was fetched before. Raises `PretrainedModelError`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=HUB_FILES, ignore_patterns=FOLDERS))
        if not any(folder.glob("*.safetensors")):
            snapshot_download(name, revision=revision, allow_patterns=HUB_PICKLES, ignore_patterns=FOLDERS)
    except Exception as error:  # network, names and rights each have exceptions of their own, of several libraries
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PretrainedModelError(
            f"The model '{name}' (revision {revision}) could not be fetched: {reason} Where there is no network, give "
            f"the job a channel '{MODEL_CHANNEL}' with the model's files; a private model needs the variable HF_TOKEN."
        ) from error
    return folder


@dataclass(frozen=True)
class Pretrained:
    """A model's configuration and tokenizer; its weights are read when a classifier is made of it."""

    folder: Path
    config: Any
    tokenizer: Any
    most_tokens: int  # of a text

    @classmethod
    def read(cls, folder: Path) -> "Pretrained":
        """Read what can be told without the weights. Raises `PretrainedModelError`."""
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        _be_quiet()
        if not (folder / "config.json").is_file():
            raise PretrainedModelError(f"{_named(folder)} holds no config.json, but: {_held(folder)}.")
        config = _read(AutoConfig, folder)
        if type(config) not in AutoModelForSequenceClassification._model_mapping:
            what = ", ".join(config.architectures or []) or config.model_type
            raise PretrainedModelError(
                f"{_named(folder)} holds a model that classifies no texts ({what}, of type {config.model_type})."
            )
        tokenizer = _read(AutoTokenizer, folder)
        names = {*TOKENIZER_FILES, *tokenizer.vocab_files_names.values()}
        if not any((folder / name).is_file() for name in names):  # it would be an empty one
            raise PretrainedModelError(
                f"{_named(folder)} holds no tokenizer ({', '.join(sorted(names))}), but: {_held(folder)}. "
                "Save it beside the model with the tokenizer's save_pretrained."
            )
        with torch.device("meta"):
            skeleton = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
        rows = skeleton.get_input_embeddings().num_embeddings
        if len(tokenizer) > rows:
            raise PretrainedModelError(
                f"{_named(folder)} holds another model's tokenizer: it has {len(tokenizer)} tokens, the model {rows}."
            )
        _let_pad(tokenizer, config)
        return cls(folder, config, tokenizer, token_limit(skeleton, tokenizer))

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels of the model's own classifier, None if it has none. Labels that nobody named are numbers."""
        if not any(name.endswith(CLASSIFIER) for name in self.config.architectures or []):
            return None
        names = [name for _, name in sorted(self.config.id2label.items())]
        is_unnamed = names == [f"{DEFAULT_LABEL}{index}" for index in range(len(names))]
        return tuple(name.removeprefix(DEFAULT_LABEL) if is_unnamed else name for name in names)

    def max_length(self, asked: int | None) -> int:
        """Return how many tokens of a text are read. Raises `HyperparameterError` for more than the model takes."""
        if asked is None:
            return min(self.most_tokens, USUAL_MAX_LENGTH)
        if asked > self.most_tokens:
            problem = f"expected at most {self.most_tokens}, which this model takes"
            raise HyperparameterError([f"Hyperparameter 'max_length' is {asked}; {problem}."])
        return asked

    def classifier(self, labels: Labels) -> nn.Module:
        """Return a model that gives a number for each label; where its own classifier does not fit, with a new one.

        Raises `PretrainedModelError` for weights that lack more than the classifier.
        """
        from transformers import AutoConfig, AutoModelForSequenceClassification

        names = labels.names or (f"{DEFAULT_LABEL}0",)
        config = _read(
            AutoConfig,
            self.folder,
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
            problem_type=labels.problem.value,
        )
        config.pad_token_id = self.config.pad_token_id
        config.use_cache = False  # nothing is generated after a text
        model, notes = _read(
            AutoModelForSequenceClassification,
            self.folder,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            weights_only=True,
        )
        new = {*notes["missing_keys"], *(entry[0] for entry in notes["mismatched_keys"])}
        inside = f"{model.base_model_prefix}."
        lost = sorted(
            name for name in new if name.startswith(inside) and not any(part in name for part in MISSING_OFTEN)
        )
        if lost:
            some = ", ".join(lost[:TENSORS_SHOWN])
            raise PretrainedModelError(
                f"The weights of {_named(self.folder)} are of another model, or incomplete: {len(lost)} tensors are "
                f"missing or of another shape, such as {some}."
            )
        self._tell(labels, new)
        return model  # type: ignore[no-any-return]

    def export(self, model: Any, directory: Path) -> None:
        """Write a trained classifier and the tokenizer: what `serve` loads as it is."""
        with publish_into(directory) as folder:
            model.cpu().eval().save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        logger.info("exported to %s: %s", directory, _held(directory))

    def _tell(self, labels: Labels, new: set[str]) -> None:
        """Say which layers begin at random, and whose labels the classifier had."""
        if new:
            logger.info("these layers are new and begin at random: %s", ", ".join(sorted(new)))
        elif not labels.is_of_model:
            had, has = ", ".join(self.labels or ()), ", ".join(labels.names)
            logger.info("the classifier begins with the weights it had for other labels: %s, now %s", had, has)


def _read(auto_class: Any, folder: Path, **options: Any) -> Any:
    """Return what an Auto class makes of a folder, without asking the network or running code that came along."""
    try:
        return auto_class.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # damaged files raise whatever the parser of each raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PretrainedModelError(f"{_named(folder)} cannot be read: {reason}; it holds: {_held(folder)}.") from error


def _let_pad(tokenizer: Any, config: Any) -> None:
    """Give a tokenizer that has none a token to pad with; attention leaves padding out, whatever it is."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if tokenizer.pad_token is None:
            raise PretrainedModelError("The tokenizer has no token to pad with; set its pad_token and save it again.")
        logger.info("the tokenizer has no token to pad with: %s does it", tokenizer.pad_token)
    config.pad_token_id = tokenizer.pad_token_id


def _be_quiet() -> None:
    """Leave out bars and reports of the library: what matters of them is said here."""
    from transformers.utils import logging as library

    library.disable_progress_bar()  # type: ignore[no-untyped-call]
    library.set_verbosity_error()  # type: ignore[no-untyped-call]


def _named(folder: Path) -> str:
    return f"The model in {folder}"


def _held(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing" if folder.is_dir() else "nothing"
