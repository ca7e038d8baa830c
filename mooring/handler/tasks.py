"""What a transformers model does: its task, named by its author or told from its config.json."""

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from mooring.contract.errors import UserCodeError


class Task(StrEnum):
    """The tasks that are served without code."""

    TEXT_CLASSIFICATION = "text-classification"
    TOKEN_CLASSIFICATION = "token-classification"  # noqa: S105 - no secret
    QUESTION_ANSWERING = "question-answering"
    FILL_MASK = "fill-mask"
    ZERO_SHOT_CLASSIFICATION = "zero-shot-classification"
    FEATURE_EXTRACTION = "feature-extraction"
    SENTENCE_EMBEDDINGS = "sentence-embeddings"
    SUMMARIZATION = "summarization"
    TRANSLATION = "translation"
    TEXT2TEXT_GENERATION = "text2text-generation"
    TEXT_GENERATION = "text-generation"
    IMAGE_CLASSIFICATION = "image-classification"
    SPEECH_RECOGNITION = "automatic-speech-recognition"
    AUDIO_CLASSIFICATION = "audio-classification"


ALIASES = {
    "sentiment-analysis": Task.TEXT_CLASSIFICATION,
    "ner": Task.TOKEN_CLASSIFICATION,
    "sentence-embedding": Task.SENTENCE_EMBEDDINGS,
    "sentence-similarity": Task.SENTENCE_EMBEDDINGS,
    "asr": Task.SPEECH_RECOGNITION,
    "text-generation-inference": Task.TEXT_GENERATION,
    "conversational": Task.TEXT_GENERATION,
}

# Name of an architecture -> task, for those whose name has no telling end.
ARCHITECTURES = {
    "GPT2LMHeadModel": Task.TEXT_GENERATION,
    "OpenAIGPTLMHeadModel": Task.TEXT_GENERATION,
    "XLNetLMHeadModel": Task.TEXT_GENERATION,
    "MTModel": Task.TEXT2TEXT_GENERATION,
    "EncoderDecoderModel": Task.TEXT2TEXT_GENERATION,
    "T5WithLMHeadModel": Task.TEXT2TEXT_GENERATION,
    "WhisperForConditionalGeneration": Task.SPEECH_RECOGNITION,
    "Speech2TextForConditionalGeneration": Task.SPEECH_RECOGNITION,
    "MoonshineForConditionalGeneration": Task.SPEECH_RECOGNITION,
}
# End of an architecture's name -> task. The first that fits decides; a plain ...Model comes last.
ENDINGS = {
    "ForQuestionAnswering": Task.QUESTION_ANSWERING,
    "ForQuestionAnsweringSimple": Task.QUESTION_ANSWERING,
    "ForTokenClassification": Task.TOKEN_CLASSIFICATION,
    "ForSequenceClassification": Task.TEXT_CLASSIFICATION,
    "ForMaskedLM": Task.FILL_MASK,
    "ForCausalLM": Task.TEXT_GENERATION,
    "ForImageClassification": Task.IMAGE_CLASSIFICATION,
    "ForCTC": Task.SPEECH_RECOGNITION,
    "ForSpeechSeq2Seq": Task.SPEECH_RECOGNITION,
    "ForAudioClassification": Task.AUDIO_CLASSIFICATION,
    "ForConditionalGeneration": Task.TEXT2TEXT_GENERATION,
    "Model": Task.FEATURE_EXTRACTION,
}
# Sequence classifiers among the audio models are audio classifiers.
AUDIO_MODELS = ("Wav2Vec2", "Hubert", "WavLM", "UniSpeech", "SEW", "Data2VecAudio", "Whisper", "AST")
# Their names end like those of models we serve, but they need other inputs.
UNSERVED = ("TapasForQuestionAnswering", "LayoutLM", "ViltForQuestionAnswering")


class TaskError(UserCodeError):
    """The task of a transformers model is unknown, or none that is served here."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        hint = "Name one as `task` in mooring.toml or in HF_TASK, or bring code/inference.py. Tasks are: "
        super().__init__(f"{problem} {hint}{', '.join(Task)}.")


def task_of_folder(root: Path, chosen: str | None) -> Task:
    """Return the task of the model in a folder. Raises `TaskError` naming the tasks there are.

    A folder that sentence-transformers wrote holds a modules.json, and embeds sentences.
    """
    if chosen:
        return _named(chosen)
    if (root / "modules.json").is_file():
        return Task.SENTENCE_EMBEDDINGS
    try:
        config = json.loads((root / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TaskError(f"config.json cannot be read: {type(error).__name__}.") from error
    if not isinstance(config, Mapping):
        raise TaskError("config.json holds no object.")
    return task_of(config, None)


def task_of(config: Mapping[str, Any], chosen: str | None) -> Task:
    """Return the chosen task, else what the architecture in a config.json is for. Raises `TaskError`.

    >>> task_of({"architectures": ["BertForMaskedLM"]}, None)
    <Task.FILL_MASK: 'fill-mask'>
    """
    if chosen:
        return _named(chosen)
    architectures = config.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    if not isinstance(name, str):
        raise TaskError("config.json names no architecture.")
    if not name.startswith(UNSERVED):
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
        if name.startswith(AUDIO_MODELS) and name.endswith("ForSequenceClassification"):
            return Task.AUDIO_CLASSIFICATION
        for ending, task in ENDINGS.items():
            if name.endswith(ending):
                return task
    raise TaskError(f"The architecture {name} is for no task that is served without code.")


def _named(chosen: str) -> Task:
    name = chosen.strip().lower().replace("_", "-")
    if name in ALIASES:
        return ALIASES[name]
    if name.startswith("translation-"):  # translation_en_to_de
        return Task.TRANSLATION
    try:
        return Task(name)
    except ValueError as error:
        raise TaskError(f"There is no task '{chosen}'.") from error
