"""Tasks of transformers models: as they are named, as architectures tell them, and what is said of the rest."""

import json
from pathlib import Path
from typing import Any

import pytest

from mooring.handler.tasks import Task, TaskError, task_of, task_of_folder


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertForSequenceClassification", "text-classification"),
        ("RobertaForTokenClassification", "token-classification"),
        ("DistilBertForQuestionAnswering", "question-answering"),
        ("FlaubertForQuestionAnsweringSimple", "question-answering"),
        ("XLMRobertaForMaskedLM", "fill-mask"),
        ("LlamaForCausalLM", "text-generation"),
        ("GPT2LMHeadModel", "text-generation"),
        ("T5ForConditionalGeneration", "text2text-generation"),
        ("T5WithLMHeadModel", "text2text-generation"),
        ("EncoderDecoderModel", "text2text-generation"),
        ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
        ("Wav2Vec2ForCTC", "automatic-speech-recognition"),
        ("Wav2Vec2ForSequenceClassification", "audio-classification"),
        ("ASTForAudioClassification", "audio-classification"),
        ("ViTForImageClassification", "image-classification"),
        ("BertModel", "feature-extraction"),
    ],
)
def test_architecture_tells_the_task(architecture: str, task: str) -> None:
    assert task_of({"architectures": [architecture]}, None) == task


@pytest.mark.parametrize(
    ("chosen", "task"),
    [
        ("text-classification", Task.TEXT_CLASSIFICATION),
        ("sentiment-analysis", Task.TEXT_CLASSIFICATION),
        (" NER ", Task.TOKEN_CLASSIFICATION),
        ("sentence-embedding", Task.SENTENCE_EMBEDDINGS),
        ("sentence-similarity", Task.SENTENCE_EMBEDDINGS),
        ("translation_en_to_de", Task.TRANSLATION),
        ("zero-shot-classification", Task.ZERO_SHOT_CLASSIFICATION),
    ],
)
def test_chosen_task_wins_under_all_its_names(chosen: str, task: Task) -> None:
    assert task_of({"architectures": ["GPT2LMHeadModel"]}, chosen) is task


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"architectures": ["TapasForQuestionAnswering"]}, "TapasForQuestionAnswering is for no task"),
        ({"architectures": ["DetrForObjectDetection"]}, "DetrForObjectDetection is for no task"),
        ({"architectures": []}, "names no architecture"),
        ({"architectures": "BertModel"}, "names no architecture"),
        ({"architectures": [7]}, "names no architecture"),
        ({}, "names no architecture"),
    ],
)
def test_unknown_architecture_is_told_what_there_is(config: Any, problem: str) -> None:
    with pytest.raises(TaskError, match=problem) as refused:
        task_of(config, None)
    assert "HF_TASK" in str(refused.value)
    assert all(task in str(refused.value) for task in Task)


def test_unknown_task_is_told_what_there_is() -> None:
    with pytest.raises(TaskError, match="no task 'object-detection'"):
        task_of({}, "object-detection")


def test_folder_of_sentence_transformers_embeds_sentences(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]", encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}), encoding="utf-8")
    assert task_of_folder(tmp_path, None) is Task.SENTENCE_EMBEDDINGS
    assert task_of_folder(tmp_path, "feature-extraction") is Task.FEATURE_EXTRACTION


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b""])
def test_damaged_configuration_is_a_task_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(TaskError, match=r"config\.json"):
        task_of_folder(tmp_path, None)
