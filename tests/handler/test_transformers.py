"""Transformers models of texts without code: answers as the library's own pipelines give them, alone and in batches."""

import io
import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers_models as make
from transformers_models import LABELS, SENTENCES, hf

from mooring.handler.defaults.transformers import TransformersHandler
from mooring.handler.errors import (
    BodyDecodeError,
    ModelLoadError,
    PredictionInputError,
    UnsupportedAcceptError,
    UnsupportedContentTypeError,
)
from mooring.handler.media_types import OPEN_INFERENCE
from mooring.handler.model_config import ModelConfig
from mooring.handler.open_inference import TensorRequestError
from mooring.handler.protocol import InferenceRequest, InferenceResponse
from mooring.handler.terms import LoadTerms

ENTAILMENT = {"contradiction": 0, "neutral": 1, "entailment": 2}
QUESTION = {
    "question": "who is eating",
    "context": "one two three " * 30 + "a man is eating a piece of bread in Berlin",
}


def request(value: Any, content_type: str = "application/json", accept: str = "") -> InferenceRequest:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return InferenceRequest(body, content_type, accept, {})


def load(path: Path, task: str | None = None, **config: Any) -> TransformersHandler:
    return TransformersHandler.load(path, LoadTerms(config=ModelConfig(task=task, **config)))


def body(answer: InferenceResponse | Exception) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return json.loads(answer.body)


def ask(handler: TransformersHandler, value: Any, content_type: str = "application/json", accept: str = "") -> Any:
    (answer,) = handler.respond([request(value, content_type, accept)])
    return body(answer)


def close(one: Any, other: Any) -> bool:
    """Whether two answers are the same but for rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return bool(np.isclose(one, other, atol=1e-4)) if isinstance(one, float) else bool(one == other)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    named: dict[str, Any] = {"id2label": LABELS, "label2id": {name: index for index, name in LABELS.items()}}
    entailed: dict[str, Any] = {"id2label": {index: name for name, index in ENTAILMENT.items()}, "label2id": ENTAILMENT}
    return {
        "text-classification": make.bert(root / "text", hf.BertForSequenceClassification, num_labels=3),
        "token-classification": make.bert(root / "token", hf.BertForTokenClassification, **named),
        "question-answering": make.bert(root / "question", hf.BertForQuestionAnswering),
        "fill-mask": make.bert(root / "mask", hf.BertForMaskedLM),
        "zero-shot-classification": make.bert(root / "zero", hf.BertForSequenceClassification, **entailed),
        "feature-extraction": make.bert(root / "feature", hf.BertModel),
        "sentence-embeddings": make.sentence_transformer(root / "sentence"),
    }


@pytest.fixture(scope="module")
def handlers(models: dict[str, Path]) -> dict[str, TransformersHandler]:
    return {task: load(path, task) for task, path in models.items()}


PIPELINE_CASES = [
    ("text-classification", SENTENCES[0], {}),
    ("text-classification", list(SENTENCES), {}),
    ("text-classification", SENTENCES[0], {"top_k": None}),
    ("text-classification", list(SENTENCES), {"top_k": 2, "function_to_apply": "sigmoid"}),
    ("text-classification", {"text": SENTENCES[0], "text_pair": SENTENCES[1]}, {}),
    ("token-classification", SENTENCES[1], {}),
    ("token-classification", SENTENCES[4], {"ignore_labels": ["I-LOC"]}),
    ("token-classification", list(SENTENCES), {"aggregation_strategy": "simple"}),
    ("token-classification", list(SENTENCES), {"aggregation_strategy": "first"}),
    ("token-classification", list(SENTENCES), {"aggregation_strategy": "average", "ignore_labels": []}),
    ("token-classification", list(SENTENCES), {"aggregation_strategy": "max"}),
    ("fill-mask", "the quick [MASK] fox", {}),
    ("fill-mask", ["the [MASK] fox", "one [MASK] three [MASK] five"], {"top_k": 3}),
    ("fill-mask", "the quick [MASK] fox", {"targets": ["dog", "fox"]}),
    ("zero-shot-classification", SENTENCES[3], {"candidate_labels": ["sports", "politics", "bread"]}),
    ("zero-shot-classification", list(SENTENCES), {"candidate_labels": "sports, politics", "multi_label": True}),
    ("zero-shot-classification", SENTENCES[3], {"candidate_labels": ["a"], "hypothesis_template": "It is {}!"}),
    ("feature-extraction", SENTENCES[0], {}),
    ("feature-extraction", list(SENTENCES), {}),
]


@pytest.mark.parametrize(("task", "inputs", "parameters"), PIPELINE_CASES)
def test_answer_is_the_pipelines(
    models: dict[str, Path], handlers: dict[str, TransformersHandler], task: str, inputs: Any, parameters: Any
) -> None:
    pipeline = hf.pipeline(task, model=str(models[task]), tokenizer=str(models[task]))
    expected = json.loads(json.dumps(pipeline(inputs, **parameters), default=lambda number: number.item()))
    assert close(ask(handlers[task], {"inputs": inputs, "parameters": parameters}), expected)


BATCHES: dict[str, list[Any]] = {
    "text-classification": [*SENTENCES, list(SENTENCES)],
    "token-classification": [*SENTENCES, list(SENTENCES)],
    "question-answering": [QUESTION, {"question": "what", "context": SENTENCES[1]}, [QUESTION] * 2],
    "fill-mask": ["[MASK] fox", "one two three four five six [MASK] eight", ["the [MASK]", "[MASK] [MASK] dog"]],
    "feature-extraction": [*SENTENCES, list(SENTENCES)],
    "sentence-embeddings": [*SENTENCES, list(SENTENCES)],
}


@pytest.mark.parametrize("task", BATCHES)
def test_batch_gives_what_each_request_gives_alone(handlers: dict[str, TransformersHandler], task: str) -> None:
    handler = handlers[task]
    assert handler.max_batch_rows == 32
    requests = [request({"inputs": inputs}) for inputs in BATCHES[task]]
    together = [body(answer) for answer in handler.respond(requests)]
    alone = [body(handler.respond([one])[0]) for one in requests]
    assert close(together, alone)


def test_more_rows_than_a_batch_come_back_in_order(handlers: dict[str, TransformersHandler]) -> None:
    handler = handlers["text-classification"]
    many = [" ".join(SENTENCES[2].split()[: 1 + index % 9]) for index in range(75)]
    assert close(ask(handler, {"inputs": many}), [ask(handler, {"inputs": one})[0] for one in many])


def test_requests_with_other_parameters_share_a_batch(handlers: dict[str, TransformersHandler]) -> None:
    asked = [{"inputs": "a dog"}, {"inputs": "a dog", "parameters": {"top_k": 2}}, {"inputs": "fox"}]
    answers = [body(answer) for answer in handlers["text-classification"].respond([request(one) for one in asked])]
    assert [len(answer) for answer in answers] == [1, 2, 1]
    assert close(answers[0][0], answers[1][0])


def test_error_of_one_request_spoils_no_other(handlers: dict[str, TransformersHandler]) -> None:
    bodies = [b'{"inputs": "a dog"}', b"{", b'{"inputs": 7}', b'{"inputs": "' + b"dog " * 200 + b'"}', b'"a dog"']
    answers = handlers["text-classification"].respond([request(one) for one in bodies])
    kinds = [InferenceResponse, BodyDecodeError, PredictionInputError, PredictionInputError, InferenceResponse]
    assert [type(answer) for answer in answers] == kinds
    assert close(body(answers[0]), body(answers[4]))


def test_failure_inside_the_model_is_told_only_to_the_request_at_fault(models: dict[str, Path]) -> None:
    handler = load(models["text-classification"])
    text = handler._task._text  # type: ignore[attr-defined]
    forward = text.model.forward

    def failing(input_ids: torch.Tensor, **rest: Any) -> Any:
        if (input_ids == text.tokenizer.convert_tokens_to_ids("fox")).any():
            raise RuntimeError("no foxes, says the file behind it")
        return forward(input_ids=input_ids, **rest)

    text.model.forward = failing
    answers = handler.respond([request({"inputs": one}) for one in ("a dog", "a fox", "a man")])
    assert [isinstance(answer, InferenceResponse) for answer in answers] == [True, False, True]
    assert "behind it" not in str(answers[1])


def test_exhausted_memory_is_a_memory_error(models: dict[str, Path]) -> None:
    handler = load(models["text-classification"])
    text = handler._task._text  # type: ignore[attr-defined]

    def failing(**_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    text.model.forward = failing
    (answer,) = handler.respond([request({"inputs": "a dog"})])
    assert isinstance(answer, MemoryError)


def test_model_without_a_token_for_padding_runs_rows_one_by_one(tmp_path: Path) -> None:
    """GPT-2 classifies by the last token that is no padding, which it cannot tell without one."""
    handler = load(make.gpt2(tmp_path, hf.GPT2ForSequenceClassification))
    assert handler.max_batch_rows == 1
    texts = ["the quick brown fox", "dog"]
    assert close(ask(handler, {"inputs": texts}), [ask(handler, text)[0] for text in texts])


def test_model_that_reads_padding_is_found_out_and_not_batched(tmp_path: Path) -> None:
    """This one knows another token for padding than its tokenizer, so it takes the padding for text."""
    path = make.gpt2(tmp_path, hf.GPT2ForSequenceClassification, pad=True)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"pad_token_id": 3}))
    assert load(path).max_batch_rows == 1
    (path / "config.json").write_text(json.dumps(config))
    assert load(path).max_batch_rows == 32


# --- bodies -----------------------------------------------------------------------------------------------------------


def test_all_bodies_mean_the_same(handlers: dict[str, TransformersHandler]) -> None:
    handler = handlers["text-classification"]
    (expected,) = ask(handler, {"inputs": "a lazy dog"})
    assert close(ask(handler, "a lazy dog"), [expected])
    assert close(ask(handler, b"a lazy dog", "text/plain; charset=utf-8"), [expected])
    assert close(ask(handler, b"inputs\na lazy dog\na lazy dog\n", "text/csv"), [expected, expected])
    lines = b'"a lazy dog"\n{"inputs": "a lazy dog"}\n\n{"inputs": ["a lazy dog"], "parameters": {"top_k": 1}}\n'
    assert close(ask(handler, lines, "application/jsonlines"), [[expected], [expected], [[expected]]])


def test_question_may_come_as_a_table_an_object_or_inputs(handlers: dict[str, TransformersHandler]) -> None:
    handler = handlers["question-answering"]
    question = {"question": "who", "context": "a man, eating"}
    expected = ask(handler, {"inputs": question})
    assert close(ask(handler, question), expected)
    assert close(ask(handler, b'question,context\nwho,"a man, eating"\n', "text/csv"), [expected])


def test_labels_can_be_written_as_csv(handlers: dict[str, TransformersHandler]) -> None:
    (answer,) = handlers["text-classification"].respond([request({"inputs": ["a", "b"]}, accept="text/csv")])
    assert isinstance(answer, InferenceResponse)
    assert answer.content_type == "text/csv"
    assert answer.body.decode().splitlines()[0] == "label,score"
    assert len(answer.body.decode().splitlines()) == 3


def test_vectors_can_be_written_as_arrays(handlers: dict[str, TransformersHandler]) -> None:
    handler = handlers["sentence-embeddings"]
    expected = ask(handler, {"inputs": ["a", "b"]})["embeddings"]
    (answer,) = handler.respond([request({"inputs": ["a", "b"]}, accept="application/x-npy")])
    assert isinstance(answer, InferenceResponse)
    assert np.allclose(np.load(io.BytesIO(answer.body)), expected)


def tensors(handler: TransformersHandler, inputs: dict[str, Sequence[str]], **parameters: Any) -> dict[str, Any]:
    """What a handler answers to named tensors of texts, by the outputs' names."""
    items = [
        {"name": name, "shape": [len(data)], "datatype": "BYTES", "data": [*data]} for name, data in inputs.items()
    ]
    answer = ask(handler, {"inputs": items, "id": "1", "parameters": parameters}, OPEN_INFERENCE)
    assert answer["id"] == "1"
    return {item["name"]: item["data"] for item in answer["outputs"]}


def test_tensors_of_text_are_answered_with_named_tensors(handlers: dict[str, TransformersHandler]) -> None:
    labelled = ask(handlers["text-classification"], SENTENCES)
    answer = tensors(handlers["text-classification"], {"any": SENTENCES})
    assert answer["label"] == [row["label"] for row in labelled]
    np.testing.assert_allclose(answer["score"], [row["score"] for row in labelled], rtol=1e-5)
    several = tensors(handlers["text-classification"], {"any": SENTENCES[:2]}, top_k=2)
    assert [len(json.loads(row)) for row in several["output_0"]] == [2, 2]


def test_tensors_of_questions_and_contexts_belong_together(handlers: dict[str, TransformersHandler]) -> None:
    answer = tensors(handlers["question-answering"], {name: [text] * 2 for name, text in QUESTION.items()})
    alone = ask(handlers["question-answering"], QUESTION)
    assert answer["answer"] == [alone["answer"]] * 2


def test_tensors_of_numbers_are_no_texts(handlers: dict[str, TransformersHandler]) -> None:
    item = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}
    with pytest.raises(TensorRequestError, match="takes texts, as BYTES; 'x' holds numbers"):
        ask(handlers["text-classification"], {"inputs": [item]}, OPEN_INFERENCE)


def test_labels_as_npy_are_not_acceptable(handlers: dict[str, TransformersHandler]) -> None:
    (answer,) = handlers["text-classification"].respond([request({"inputs": "a"}, accept="application/x-npy")])
    assert isinstance(answer, UnsupportedAcceptError)


@pytest.mark.parametrize(
    ("content", "content_type", "error"),
    [
        (b"a,b\n1,2\n", "text/csv", BodyDecodeError),
        (b"", "text/csv", BodyDecodeError),
        (b"inputs\nx,y\n", "text/csv", BodyDecodeError),
        (b"\xff", "text/plain", BodyDecodeError),
        (b"", "application/jsonlines", BodyDecodeError),
        (b'"a"\n{', "application/jsonlines", BodyDecodeError),
        (b"x", "image/png", UnsupportedContentTypeError),
        (b"null", "application/json", PredictionInputError),
        (b"[]", "application/json", PredictionInputError),
        (b"{}", "application/json", PredictionInputError),
        (b'{"inputs": []}', "application/json", PredictionInputError),
        (b'{"inputs": [["a"]]}', "application/json", PredictionInputError),
        (b'{"inputs": {"text": "a", "pair": "b"}}', "application/json", PredictionInputError),
        (b'{"inputs": "a", "parameters": []}', "application/json", InferenceResponse),
        (b'{"inputs": "a", "parameters": [1]}', "application/json", PredictionInputError),
        (b'{"inputs": "a", "parameters": {"temperature": 1}}', "application/json", PredictionInputError),
        (b'{"inputs": "a", "parameters": {"top_k": true}}', "application/json", PredictionInputError),
        (b'{"inputs": "a", "parameters": {"top_k": 0}}', "application/json", PredictionInputError),
        (b'{"inputs": "a", "parameters": {"function_to_apply": "eval"}}', "application/json", PredictionInputError),
        (b'{"inputs": "a", "stream": true}', "application/json", PredictionInputError),
    ],
)
def test_body_that_does_not_fit_is_the_callers_error(
    handlers: dict[str, TransformersHandler], content: bytes, content_type: str, error: type
) -> None:
    (answer,) = handlers["text-classification"].respond([request(content, content_type)])
    assert type(answer) is error


@pytest.mark.parametrize(
    ("task", "value"),
    [
        ("zero-shot-classification", {"inputs": "a"}),
        ("zero-shot-classification", {"inputs": "a", "parameters": {"candidate_labels": []}}),
        ("zero-shot-classification", {"inputs": "a", "parameters": {"candidate_labels": [1]}}),
        (
            "zero-shot-classification",
            {"inputs": "a", "parameters": {"candidate_labels": ["b"], "hypothesis_template": "{0.__class__}{}"}},
        ),
        ("zero-shot-classification", {"inputs": [], "parameters": {"candidate_labels": ["b"]}}),
        ("fill-mask", {"inputs": "no mask"}),
        ("fill-mask", {"inputs": "a [MASK]", "parameters": {"targets": ["日曜日曜"]}}),
        ("question-answering", {"inputs": "who"}),
        ("question-answering", {"question": "who", "context": ""}),
        ("question-answering", {"question": "who " * 100, "context": "a man"}),
        ("question-answering", {"inputs": {**QUESTION}, "parameters": {"top_k": -1}}),
        ("token-classification", {"inputs": "a", "parameters": {"aggregation_strategy": "last"}}),
        ("sentence-embeddings", {"inputs": "a", "parameters": {"prompt_name": "query"}}),
        ("sentence-embeddings", {"inputs": None}),
    ],
)
def test_input_that_does_not_fit_is_told_what_would(
    handlers: dict[str, TransformersHandler], task: str, value: Any
) -> None:
    (answer,) = handlers[task].respond([request(value)])
    assert isinstance(answer, PredictionInputError)


def test_text_over_the_models_limit_is_cut_only_when_asked(handlers: dict[str, TransformersHandler]) -> None:
    handler = handlers["text-classification"]
    with pytest.raises(PredictionInputError, match=r"502 tokens long.*at most 64 tokens"):
        ask(handler, {"inputs": "dog " * 500})
    cut = ask(handler, {"inputs": "dog " * 500, "parameters": {"truncation": True}})
    assert close(cut, ask(handler, {"inputs": "dog " * 62}))


# --- question answering -----------------------------------------------------------------------------------------------


def best_span(path: Path, question: str, context: str, longest: int = 15) -> tuple[float, int, int]:
    """The best answer in a text that fits the model at once, by trying all spans."""
    tokenizer = hf.AutoTokenizer.from_pretrained(path)
    model = hf.AutoModelForQuestionAnswering.from_pretrained(path).eval()
    encoded = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    parts = encoded.sequence_ids(0)
    with torch.no_grad():
        output = model(**encoded)
    places = [index for index, part in enumerate(parts) if part == 1]
    allowed = torch.full((len(parts),), -1e9)
    allowed[[0, *places]] = 0.0
    starts = (output.start_logits[0] + allowed).softmax(-1)
    ends = (output.end_logits[0] + allowed).softmax(-1)
    return max(
        ((starts[first] * ends[last]).item(), offsets[first][0], offsets[last][1])
        for first in places
        for last in places
        if first <= last < first + longest
    )


def test_answer_is_the_likeliest_span(models: dict[str, Path], handlers: dict[str, TransformersHandler]) -> None:
    for question, context in (("who", SENTENCES[1]), ("what is this about", SENTENCES[3]), ("one", SENTENCES[2])):
        score, start, end = best_span(models["question-answering"], question, context)
        answer = ask(handlers["question-answering"], {"question": question, "context": context})
        assert (answer["start"], answer["end"], answer["answer"]) == (start, end, context[start:end])
        assert answer["score"] == pytest.approx(score, abs=1e-5)


def test_several_answers_come_best_first_and_short_ones_on_request(handlers: dict[str, TransformersHandler]) -> None:
    asked = {"inputs": QUESTION, "parameters": {"top_k": 4, "max_answer_len": 1, "doc_stride": 8}}
    answers = ask(handlers["question-answering"], asked)
    assert len(answers) == 4
    assert [answer["score"] for answer in answers] == sorted((answer["score"] for answer in answers), reverse=True)
    assert all(" " not in answer["answer"] for answer in answers)


def test_unanswerable_question_may_be_told(handlers: dict[str, TransformersHandler]) -> None:
    asked = {"inputs": QUESTION, "parameters": {"handle_impossible_answer": True, "top_k": 5000}}
    answers = ask(handlers["question-answering"], asked)
    assert {"start": 0, "end": 0, "answer": ""}.items() <= next(a for a in answers if not a["answer"]).items()


# --- sentence embeddings ----------------------------------------------------------------------------------------------


def token_vectors(path: Path, text: str) -> Any:
    tokenizer = hf.AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        return hf.AutoModel.from_pretrained(path).eval()(**tokenizer(text, return_tensors="pt"))[0][0].numpy()


def unit(vector: Any) -> Any:
    return vector / np.linalg.norm(vector)


POOLINGS: list[tuple[dict[str, Any], Callable[[Any], Any]]] = [
    ({"pooling_mode_mean_tokens": True}, lambda tokens: tokens.mean(0)),
    ({"pooling_mode_cls_token": True}, lambda tokens: tokens[0]),
    ({"pooling_mode_max_tokens": True}, lambda tokens: tokens.max(0)),
    ({"pooling_mode_lasttoken": True}, lambda tokens: tokens[-1]),
    ({"pooling_mode": "mean"}, lambda tokens: tokens.mean(0)),
    (
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        lambda tokens: np.concatenate([tokens[0], tokens.mean(0)]),
    ),
]


@pytest.mark.parametrize(("config", "pool"), POOLINGS)
def test_sentence_is_pooled_as_its_folder_says(tmp_path: Path, config: Any, pool: Callable[[Any], Any]) -> None:
    path = make.sentence_transformer(tmp_path / "raw", (), **config)
    tokens = token_vectors(path, SENTENCES[0])
    assert np.allclose(ask(load(path), {"inputs": SENTENCES[0]})["embeddings"], pool(tokens), atol=1e-5)


def test_sentence_vectors_are_of_length_one_where_the_folder_says_so(handlers: dict[str, TransformersHandler]) -> None:
    vectors = ask(handlers["sentence-embeddings"], {"inputs": list(SENTENCES)})["embeddings"]
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_sentence_longer_than_the_limit_is_cut_as_sentence_transformers_does(tmp_path: Path) -> None:
    path = make.sentence_transformer(tmp_path / "m")
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8, "do_lower_case": False}))
    handler = load(path)
    assert close(ask(handler, {"inputs": "dog " * 50}), ask(handler, {"inputs": "dog " * 6}))


def test_prompt_comes_before_the_text(tmp_path: Path) -> None:
    path = make.sentence_transformer(tmp_path / "m")
    (path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "one two "}}))
    handler = load(path)
    prompted = ask(handler, {"inputs": "dog", "parameters": {"prompt_name": "query"}})
    assert close(prompted, ask(handler, {"inputs": "one two dog"}))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ([{"type": "sentence_transformers.models.LSTM", "path": ""}], "a step 'LSTM' that is unknown"),
        ([{"type": "sentence_transformers.models.Transformer", "path": ""}], "names no pooling"),
        ([{"type": "sentence_transformers.models.Pooling", "path": "../../etc"}], "leaves the model's folder"),
        ({}, "no list of objects"),
    ],
)
def test_steps_that_cannot_be_taken_are_refused_at_load(tmp_path: Path, change: Any, problem: str) -> None:
    path = make.sentence_transformer(tmp_path / "m")
    (path / "modules.json").write_text(json.dumps(change))
    with pytest.raises(ModelLoadError, match=problem):
        load(path)


# --- loading ----------------------------------------------------------------------------------------------------------


def test_loading_never_touches_the_network(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("something asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for task, path in models.items():
        load(path, task)


def test_weights_without_the_tasks_layer_are_refused(models: dict[str, Path]) -> None:
    """The library would make the layer up, and its answers would be random."""
    with pytest.raises(ModelLoadError, match=r"lack classifier\.bias, classifier\.weight: they are for another task"):
        load(models["feature-extraction"], "text-classification")


def test_pickled_weights_are_loaded_only_where_the_author_allows_it(tmp_path: Path) -> None:
    path = make.bert(tmp_path, hf.BertForSequenceClassification)
    expected = ask(load(path), {"inputs": "a dog"})
    torch.save(hf.AutoModelForSequenceClassification.from_pretrained(path).state_dict(), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"pytorch_model\.bin cannot be loaded: it is a pickle.*allow_pickle"):
        load(path)
    assert close(ask(load(path, allow_pickle=True), {"inputs": "a dog"}), expected)


def test_code_beside_the_model_is_not_run_unasked(tmp_path: Path) -> None:
    path = make.bert(tmp_path, hf.BertForSequenceClassification)
    (path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    config = json.loads((path / "config.json").read_text())
    mapped = {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}}
    (path / "config.json").write_text(json.dumps(config | mapped))
    ask(load(path), {"inputs": "a dog"})
    (path / "config.json").write_text(json.dumps(config | mapped | {"model_type": "evil"}))
    with pytest.raises(ModelLoadError):
        load(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_damaged_file_is_told_without_the_servers_paths(tmp_path: Path, name: str) -> None:
    path = make.bert(tmp_path / "model", hf.BertForSequenceClassification)
    (path / name).write_bytes((path / name).read_bytes()[:50])
    with pytest.raises(ModelLoadError) as refused:
        load(path, "text-classification")
    assert str(tmp_path) not in str(refused.value)
