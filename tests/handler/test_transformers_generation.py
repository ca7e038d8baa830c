"""Generated text: what transformers' own generate makes, token by token, and no token more than somebody reads."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers_models as make
from transformers_models import hf

from mooring.handler.defaults.transformers import TransformersHandler
from mooring.handler.errors import PredictionError, PredictionInputError
from mooring.handler.model_config import ModelConfig
from mooring.handler.protocol import InferenceRequest, InferenceResponse
from mooring.handler.terms import LoadTerms

PROMPT = "the quick brown fox"


def request(value: Any, accept: str = "", is_cancelled: Callable[[], bool] = bool) -> InferenceRequest:
    return InferenceRequest(json.dumps(value).encode(), "application/json", accept, {}, is_cancelled)


def load(path: Path, task: str | None = None) -> TransformersHandler:
    return TransformersHandler.load(path, LoadTerms(config=ModelConfig(task=task)))


def response(handler: TransformersHandler, value: Any, accept: str = "") -> InferenceResponse:
    (answer,) = handler.respond([request(value, accept)])
    if isinstance(answer, Exception):
        raise answer
    return answer


def ask(handler: TransformersHandler, text: Any, **parameters: Any) -> Any:
    return json.loads(response(handler, {"inputs": text, "parameters": parameters}).body)


def chunks(handler: TransformersHandler, text: Any, **parameters: Any) -> Iterator[bytes]:
    answer = response(handler, {"inputs": text, "parameters": parameters, "stream": True})
    assert answer.content_type == "text/event-stream"
    assert answer.chunks is not None
    return answer.chunks


def events(made: Iterator[bytes]) -> list[Any]:
    read = []
    for chunk in made:
        assert chunk.startswith(b"data: ")
        assert chunk.endswith(b"\n\n")
        read.append(json.loads(chunk.removeprefix(b"data: ")))
    return read


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "gpt2": make.gpt2(root / "gpt2"),
        "llama": make.llama(root / "llama"),
        "t5": make.t5(root / "t5"),
        "bart": make.bart(root / "bart"),
    }


@pytest.fixture(scope="module")
def handlers(paths: dict[str, Path]) -> dict[str, TransformersHandler]:
    return {name: load(path) for name, path in paths.items()}


def generated(path: Path, text: str, **settings: Any) -> list[int]:
    """What transformers makes by itself."""
    tokenizer = hf.AutoTokenizer.from_pretrained(path)
    config = hf.AutoConfig.from_pretrained(path)
    auto_class = hf.AutoModelForSeq2SeqLM if config.is_encoder_decoder else hf.AutoModelForCausalLM
    model = auto_class.from_pretrained(path).eval()
    encoded = tokenizer(text, return_tensors="pt")
    encoded.pop("token_type_ids", None)
    tokens = model.generate(**encoded, pad_token_id=0, **settings)[0].tolist()
    return list(tokens[1 if config.is_encoder_decoder else encoded["input_ids"].shape[1] :])


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"repetition_penalty": 1.5},
        {"no_repeat_ngram_size": 2, "min_new_tokens": 10},
    ],
)
def test_streamed_tokens_are_those_of_greedy_generate(
    paths: dict[str, Path], handlers: dict[str, TransformersHandler], name: str, settings: dict[str, Any]
) -> None:
    expected = generated(paths[name], PROMPT, max_new_tokens=20, **settings)
    streamed = events(chunks(handlers[name], PROMPT, max_new_tokens=20, **settings))
    assert [event["token"]["id"] for event in streamed] == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart"])
def test_streamed_text_adds_up_to_the_answer(handlers: dict[str, TransformersHandler], name: str) -> None:
    streamed = events(chunks(handlers[name], PROMPT, max_new_tokens=12))
    whole = "".join(event["token"]["text"] for event in streamed)
    assert streamed[-1]["generated_text"] == whole
    assert [event["generated_text"] for event in streamed[:-1]] == [None] * (len(streamed) - 1)
    assert streamed[-1]["details"]["generated_tokens"] == len(streamed)
    (answer,) = ask(handlers[name], PROMPT, max_new_tokens=12)
    expected = PROMPT + whole if name in ("gpt2", "llama") else whole.strip()
    assert answer["generated_text"] == expected


def test_answer_is_the_pipelines(paths: dict[str, Path], handlers: dict[str, TransformersHandler]) -> None:
    pipeline = hf.pipeline("text-generation", model=str(paths["llama"]))
    settings = {"max_new_tokens": 9, "do_sample": False}
    assert ask(handlers["llama"], PROMPT, **settings) == pipeline(PROMPT, **settings)
    assert ask(handlers["llama"], [PROMPT, "one"], **settings) == pipeline([PROMPT, "one"], **settings)
    new = pipeline(PROMPT, return_full_text=False, **settings)
    assert ask(handlers["llama"], PROMPT, return_full_text=False, **settings) == new
    chat = [{"role": "user", "content": "hi"}]
    assert ask(handlers["llama"], chat, **settings) == pipeline(chat, **settings)


def test_characters_are_streamed_whole(paths: dict[str, Path]) -> None:
    """Byte tokenizers cut most characters of the world into several tokens."""
    handler = load(paths["gpt2"])
    generator = handler._task._generator  # type: ignore[attr-defined]
    text = "a 日本語 🙂 é"
    tokens = generator.text.tokenizer(text)["input_ids"]
    assert len(tokens) > len(text)
    row = handler._task.rows(make_item(PROMPT))[0]
    made = ((token, index == len(tokens) - 1) for index, token in enumerate(tokens))
    pieces = [piece.text for piece in generator._in_text(made, row)]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def make_item(text: str) -> Any:
    from mooring.handler.defaults.transformers_bodies import Item

    return Item(text)


def count_steps(handler: TransformersHandler) -> list[int]:
    """Count how often the model computes, from now on."""
    model = handler._task._generator.text.model  # type: ignore[attr-defined]
    steps: list[int] = []
    model.register_forward_pre_hook(lambda *_: steps.append(1))
    return steps


def test_nothing_is_computed_beyond_what_is_read(paths: dict[str, Path]) -> None:
    handler = load(paths["gpt2"])
    steps = count_steps(handler)
    made = chunks(handler, PROMPT, max_new_tokens=40)
    assert len(steps) == 0
    next(made)
    assert len(steps) == 1
    next(made)
    made.close()  # type: ignore[attr-defined]
    assert len(steps) == 2


def test_inference_mode_does_not_leak_between_tokens(handlers: dict[str, TransformersHandler]) -> None:
    made = chunks(handlers["gpt2"], PROMPT, max_new_tokens=5)
    next(made)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


def test_two_streams_may_take_turns(handlers: dict[str, TransformersHandler]) -> None:
    alone = events(chunks(handlers["llama"], PROMPT, max_new_tokens=8))
    other = events(chunks(handlers["llama"], "one two", max_new_tokens=8))
    turns = zip(
        chunks(handlers["llama"], PROMPT, max_new_tokens=8),
        chunks(handlers["llama"], "one two", max_new_tokens=8),
        strict=True,
    )
    first, second = zip(*turns, strict=True)
    assert (events(iter(first)), events(iter(second))) == (alone, other)


def test_generation_ends_when_the_client_is_gone(paths: dict[str, Path]) -> None:
    handler = load(paths["gpt2"])
    steps = count_steps(handler)
    handler.respond([request({"inputs": PROMPT}, is_cancelled=lambda: len(steps) >= 3)])
    assert len(steps) == 3
    steps.clear()
    beams = {"inputs": PROMPT, "parameters": {"num_beams": 2, "max_new_tokens": 30}}
    handler.respond([request(beams, is_cancelled=lambda: len(steps) >= 3)])
    assert len(steps) == 3


def test_stop_ends_the_text_with_it(handlers: dict[str, TransformersHandler]) -> None:
    (whole,) = ask(handlers["llama"], PROMPT, max_new_tokens=30, return_full_text=False)
    stop = whole["generated_text"][6:9]
    end = whole["generated_text"].index(stop) + len(stop)
    (answer,) = ask(handlers["llama"], PROMPT, max_new_tokens=30, return_full_text=False, stop=[stop])
    assert answer["generated_text"] == whole["generated_text"][:end]
    last = events(chunks(handlers["llama"], PROMPT, max_new_tokens=30, stop=stop))[-1]
    assert last["details"]["finish_reason"] == "stop_sequence"
    assert last["generated_text"] == whole["generated_text"][:end]


def test_end_token_ends_the_text(paths: dict[str, Path], handlers: dict[str, TransformersHandler]) -> None:
    tokens = generated(paths["gpt2"], PROMPT, max_new_tokens=20)
    streamed = events(chunks(handlers["gpt2"], PROMPT, max_new_tokens=20, eos_token_id=tokens[3]))
    assert [event["token"]["id"] for event in streamed] == tokens[: tokens.index(tokens[3]) + 1]
    assert streamed[-1]["details"]["finish_reason"] == "eos_token"


def test_same_seed_gives_the_same_text_and_leaves_the_processs_alone(handlers: dict[str, TransformersHandler]) -> None:
    sampled = {"do_sample": True, "temperature": 3.0, "max_new_tokens": 20}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    for more in ({}, {"num_return_sequences": 2}):
        first = ask(handlers["llama"], PROMPT, seed=7, **sampled, **more)
        assert ask(handlers["llama"], PROMPT, seed=7, **sampled, **more) == first
        assert ask(handlers["llama"], PROMPT, seed=8, **sampled, **more) != first
    assert torch.equal(torch.rand(3), expected)


def test_beams_give_what_generate_gives(paths: dict[str, Path], handlers: dict[str, TransformersHandler]) -> None:
    tokenizer = hf.AutoTokenizer.from_pretrained(paths["t5"])
    expected = generated(paths["t5"], PROMPT, max_new_tokens=8, num_beams=3)
    (answer,) = ask(handlers["t5"], PROMPT, max_new_tokens=8, num_beams=3)
    assert answer["generated_text"] == tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert len(ask(handlers["llama"], PROMPT, max_new_tokens=8, num_beams=3, num_return_sequences=2)) == 2


def test_text_never_outgrows_the_models_positions(handlers: dict[str, TransformersHandler]) -> None:
    streamed = events(chunks(handlers["gpt2"], PROMPT, max_new_tokens=1000))
    row = handlers["gpt2"]._task.rows(make_item(PROMPT))[0]
    assert len(streamed) + len(row.inputs["input_ids"]) == 64
    with pytest.raises(PredictionInputError):
        ask(handlers["gpt2"], PROMPT * 20)


def test_model_that_usually_searches_with_beams_can_be_streamed(tmp_path: Path) -> None:
    path = make.state_generation(make.bart(tmp_path), num_beams=4, early_stopping=True)
    handler = load(path)
    assert handler._task._generator.text.model.generation_config.num_beams == 4  # type: ignore[attr-defined]
    expected = generated(path, PROMPT, max_new_tokens=6, num_beams=1, early_stopping=None)
    assert [event["token"]["id"] for event in events(chunks(handler, PROMPT, max_new_tokens=6))] == expected
    tokenizer = hf.AutoTokenizer.from_pretrained(path)
    (answer,) = ask(handler, PROMPT, max_new_tokens=6)
    searched = generated(path, PROMPT, max_new_tokens=6, num_beams=4, early_stopping=True)
    assert answer["generated_text"] == tokenizer.decode(searched, skip_special_tokens=True).strip()


def test_lines_are_streamed_to_those_who_want_lines(handlers: dict[str, TransformersHandler]) -> None:
    value = {"inputs": PROMPT, "parameters": {"max_new_tokens": 4}, "stream": True}
    answer = response(handlers["gpt2"], value, accept="application/jsonlines")
    assert answer.chunks is not None
    lines = [json.loads(line) for line in answer.chunks]
    assert answer.content_type == "application/jsonlines"
    assert len(lines) == 4


def test_accepting_events_is_asking_for_a_stream(handlers: dict[str, TransformersHandler]) -> None:
    answer = response(handlers["gpt2"], {"inputs": PROMPT}, accept="text/event-stream")
    assert answer.chunks is not None


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("summarization", "summary_text"),
        ("translation_en_to_de", "translation_text"),
        ("text2text-generation", "generated_text"),
    ],
)
def test_task_names_its_text_and_brings_its_settings(tmp_path: Path, task: str, key: str) -> None:
    specific = {task: {"prefix": "one two: ", "max_length": 6}}
    path = make.t5(tmp_path, task_specific_params=specific)
    tokenizer = hf.AutoTokenizer.from_pretrained(path)
    expected = generated(path, f"one two: {PROMPT}", max_length=6)
    handler = load(path, task)
    assert ask(handler, PROMPT) == [{key: tokenizer.decode(expected, skip_special_tokens=True).strip()}]
    assert ask(handler, [PROMPT, PROMPT]) == ask(handler, PROMPT) * 2


def test_language_is_that_of_its_own_request(tmp_path: Path) -> None:
    handler = load(make.mbart(tmp_path), "translation")
    settings = {"max_new_tokens": 12, "no_repeat_ngram_size": 1}
    usual = ask(handler, PROMPT, **settings)
    assert ask(handler, PROMPT, **settings, src_lang="en_XX") == usual
    assert ask(handler, PROMPT, **settings, src_lang="de_DE") != usual
    assert ask(handler, PROMPT, **settings) == usual
    with pytest.raises(PredictionInputError, match="does not know the language 'tlh'"):
        ask(handler, PROMPT, src_lang="tlh")


def test_chat_goes_on_as_its_template_says(paths: dict[str, Path], handlers: dict[str, TransformersHandler]) -> None:
    chat = [{"role": "user", "content": "one two"}]
    (answer,) = ask(handlers["llama"], {"messages": chat}, max_new_tokens=5)
    (plain,) = ask(handlers["llama"], "user: one two\nassistant: ", max_new_tokens=5, return_full_text=False)
    assert answer["generated_text"] == [*chat, {"role": "assistant", "content": plain["generated_text"]}]


@pytest.mark.parametrize(
    ("inputs", "parameters"),
    [
        (7, {}),
        ([], {}),
        ([7], {}),
        ([{"role": "user"}], {}),
        (PROMPT, {"max_new_tokens": 0}),
        (PROMPT, {"max_new_tokens": -5}),
        (PROMPT, {"max_new_tokens": "many"}),
        (PROMPT, {"do_sample": True, "temperature": 0.0}),
        (PROMPT, {"do_sample": True, "top_p": -1.0}),
        (PROMPT, {"repetition_penalty": -1.0}),
        (PROMPT, {"num_beams": 0}),
        (PROMPT, {"num_beams": 10_000}),
        (PROMPT, {"seed": -1}),
        (PROMPT, {"stop": [""]}),
        (PROMPT, {"stop": [1]}),
        (PROMPT, {"custom_generate": "somebody/code"}),
        (PROMPT, {"assistant_model": "x"}),
        (PROMPT, {"eos_token_id": ["a"]}),
        (PROMPT, {"num_return_sequences": 2}),
    ],
)
def test_settings_that_do_not_fit_are_the_callers_error(
    handlers: dict[str, TransformersHandler], inputs: Any, parameters: dict[str, Any]
) -> None:
    with pytest.raises(PredictionInputError):
        ask(handlers["llama"], inputs, **parameters)


def test_chat_without_a_template_is_the_callers_error(handlers: dict[str, TransformersHandler]) -> None:
    with pytest.raises(PredictionInputError, match="The chat cannot be read"):
        ask(handlers["gpt2"], [{"role": "user", "content": "hi"}])


def test_settings_that_do_not_fit_are_told_before_a_stream_begins(handlers: dict[str, TransformersHandler]) -> None:
    with pytest.raises(PredictionInputError):
        chunks(handlers["gpt2"], PROMPT, max_new_tokens=0)
    with pytest.raises(PredictionInputError, match="Several texts"):
        chunks(handlers["gpt2"], [PROMPT, PROMPT])


@pytest.mark.parametrize(
    ("raised", "told"), [(torch.OutOfMemoryError("full"), MemoryError), (RuntimeError("broken"), PredictionError)]
)
def test_failure_within_a_stream_is_told_in_our_words(paths: dict[str, Path], raised: Exception, told: type) -> None:
    handler = load(paths["gpt2"])
    made = chunks(handler, PROMPT, max_new_tokens=9)
    next(made)

    def failing(*_: Any) -> None:
        raise raised

    handler._task._generator.text.model.register_forward_pre_hook(failing)  # type: ignore[attr-defined]
    with pytest.raises(told):
        next(made)
