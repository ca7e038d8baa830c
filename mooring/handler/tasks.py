"""What a transformers model does, and how that is told: by its user, or by what its folder says of itself.

Reads config.json only; the transformers library is imported where a model is loaded.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mooring.contract.errors import UserCodeError

# Task -> other names it goes by.
TASKS: dict[str, tuple[str, ...]] = {
    "text-classification": ("sentiment-analysis",),
    "token-classification": ("ner",),
    "question-answering": (),
    "fill-mask": (),
    "zero-shot-classification": (),
    "feature-extraction": (),
    "sentence-embedding": ("sentence-embeddings", "sentence-similarity"),
    "text-generation": (),
    "text2text-generation": (),
    "summarization": (),
    "translation": (),
    "image-classification": (),
    "automatic-speech-recognition": (),
    "audio-classification": (),
}
# End of an architecture's class name -> task; the first that fits decides.
ARCHITECTURES: tuple[tuple[str, str], ...] = (
    ("ForQuestionAnswering", "question-answering"),
    ("ForTokenClassification", "token-classification"),
    ("ForAudioClassification", "audio-classification"),
    ("ForImageClassification", "image-classification"),
    ("ForSequenceClassification", "text-classification"),
    ("ForMaskedLM", "fill-mask"),
    ("ForCausalLM", "text-generation"),
    ("GPT2LMHeadModel", "text-generation"),
    ("ForCTC", "automatic-speech-recognition"),
    ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
    ("ForSpeechSeq2Seq", "automatic-speech-recognition"),
    ("ForConditionalGeneration", "text2text-generation"),
    ("MTModel", "text2text-generation"),
    ("EncoderDecoderModel", "text2text-generation"),
    ("T5WithLMHeadModel", "text2text-generation"),
    ("Model", "feature-extraction"),
)
# sentence-transformers writes this beside a model whose token vectors it pools.
MODULES = "modules.json"


class TaskError(UserCodeError):
    """What a transformers model does is not known, or is nothing that can be served."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem} Say what it does with HF_TASK, or with task in mooring.toml: one of {', '.join(TASKS)}."
        )


def task_of_folder(folder: Path, chosen: str | None) -> str:
    """Return the task of the model in a folder. Raises `TaskError`."""
    if chosen:
        return _named(chosen)
    if (folder / MODULES).is_file():
        return "sentence-embedding"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise TaskError(f"config.json cannot be read: {error}.") from error
    return task_of(config if isinstance(config, dict) else {})


def task_of(config: Mapping[str, Any]) -> str:
    """Return the task that a model's configuration implies. Raises `TaskError`.

    >>> task_of({"architectures": ["BertForSequenceClassification"]})
    'text-classification'
    """
    architectures = config.get("architectures") or []
    for architecture in architectures:
        for ending, task in ARCHITECTURES:
            if str(architecture).endswith(ending):
                return task
    raise TaskError(f"The architecture {', '.join(map(str, architectures)) or '(none)'} does not say what it does.")


def _named(chosen: str) -> str:
    wanted = chosen.strip().lower()
    for task, aliases in TASKS.items():
        if wanted == task or wanted in aliases or (task == "translation" and wanted.startswith("translation_")):
            return task
    raise TaskError(f'The task "{chosen}" is none that is served here.')
