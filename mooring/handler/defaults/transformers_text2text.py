"""The tasks that generate text: continuing a text or a chat, and making another text of one, as translations do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mooring.handler.errors import PredictionInputError
from mooring.handler.tasks import Task
from mooring.handler.terms import LoadTerms

from .torch_weights import first_line
from .transformers_bodies import Item, Medium
from .transformers_generation import SETTINGS, Generator, Piece, Prompt, read_settings
from .transformers_rows import NO_LIMIT, Row, TextModel, texts

CHAT = '\'inputs\', a text, a list of texts, or messages of a chat, each {"role", "content"}'

# Task -> what its text is called in answers.
KEYS = {Task.SUMMARIZATION: "summary_text", Task.TRANSLATION: "translation_text"}


class TextGeneration:
    """Texts, or chats, to how they go on. One at a time: padded together, their tokens could come out otherwise."""

    medium = Medium.TEXT
    max_batch_rows = 1

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    @classmethod
    def load(cls, folder: Path, terms: LoadTerms) -> "TextGeneration":
        """Load the model of a folder. Raises `ModelLoadError`, `MemoryError`."""
        from transformers import AutoModelForCausalLM

        return cls(Generator(TextModel.load(AutoModelForCausalLM, folder, terms)))

    def rows(self, item: Item) -> list[Row]:
        """Return a row per text or chat."""
        settings, stops, seed = read_settings(item)
        truncation = item.option("truncation", bool, False)
        item.option("return_full_text", bool, True)
        rows = []
        for given in _prompts(item):
            encoded = self._encode(given, truncation=truncation)
            limit = self._generator.text.max_tokens - len(encoded["input_ids"])
            if limit < 1:
                problem = "The text leaves no room for an answer."
                raise PredictionInputError(problem, (f"fewer than {self._generator.text.max_tokens} tokens",))
            rows.append(
                self._generator.text.row(encoded, Prompt(given, settings, stops, seed, limit, item.is_cancelled))
            )
        return rows

    def run(self, rows: Sequence[Row]) -> list[list[str]]:
        """Return each row's generated texts."""
        return [self._generator.texts(row) for row in rows]

    def answer(self, item: Item, rows: Sequence[Row], outputs: Sequence[list[str]]) -> Any:
        """Return the generated texts, after what they continue unless `return_full_text` is false."""
        is_full = item.option("return_full_text", bool, True)
        made = [
            [{"generated_text": _joined(row.about.given, text) if is_full else text} for text in generated]
            for row, generated in zip(rows, outputs, strict=True)
        ]
        return made if _is_several(item.inputs) else made[0]

    def stream(self, item: Item) -> Iterator[Piece]:
        """Return the tokens of one text as they are made. Raises `PredictionInputError`."""
        return _stream(self._generator, self.rows(item), item)

    def _encode(self, given: str | tuple[Mapping[str, str], ...], *, truncation: bool) -> Any:
        text = self._generator.text
        if isinstance(given, str):
            start = text.tokenizer.bos_token
            return text.encode(given or start or "", truncation=truncation)
        continues = given[-1]["role"] == "assistant"
        try:
            chat = text.tokenizer.apply_chat_template(
                list(given), tokenize=False, add_generation_prompt=not continues, continue_final_message=continues
            )
        except Exception as error:  # the template is the author's, and what it raises is for the messages' sender
            raise PredictionInputError(f"The chat cannot be read: {first_line(error)}", (CHAT,)) from error
        return text.encode(chat, truncation=truncation, add_special_tokens=False)


class Text2Text:
    """Texts to other texts: summaries, translations and whatever else a model with encoder and decoder makes."""

    medium = Medium.TEXT
    max_batch_rows = 1

    def __init__(self, generator: Generator, key: str, prefix: str, settings: Mapping[str, Any]) -> None:
        self._generator = generator
        self._key = key
        self._prefix = prefix
        self._settings = settings
        self._usual_language = getattr(generator.text.tokenizer, "src_lang", None)

    @classmethod
    def load(cls, folder: Path, terms: LoadTerms, task: Task, chosen: str) -> "Text2Text":
        """Load the model of a folder, for a task as it was chosen: `translation_en_to_de` may have settings of its own.

        Raises `ModelLoadError`, `MemoryError`.
        """
        from transformers import AutoModelForSeq2SeqLM

        text = TextModel.load(AutoModelForSeq2SeqLM, folder, terms)
        own = (getattr(text.model.config, "task_specific_params", None) or {}).get(chosen, {})
        prefix = own.get("prefix") or getattr(text.model.config, "prefix", None) or ""
        settings = {name: value for name, value in own.items() if name in SETTINGS}
        return cls(Generator(text), KEYS.get(task, "generated_text"), prefix, settings)

    def rows(self, item: Item) -> list[Row]:
        """Return a row per text."""
        settings, stops, seed = read_settings(item)
        truncation = item.option("truncation", bool, False)
        text = self._generator.text
        given_up = "max_length" if "max_new_tokens" in settings else ""
        usual = {name: value for name, value in self._settings.items() if name != given_up}
        settings = {**usual, **self._languages(item), **settings}
        prompt = Prompt("", settings, stops, seed, _decoder_limit(text.model), item.is_cancelled)
        return [
            text.row(text.encode(self._prefix + one, truncation=truncation), replace(prompt, given=one))
            for one in texts(item)
        ]

    def run(self, rows: Sequence[Row]) -> list[list[str]]:
        """Return each row's generated texts."""
        return [self._generator.texts(row) for row in rows]

    def answer(self, item: Item, _: Sequence[Row], outputs: Sequence[list[str]]) -> Any:
        """Return the texts made: one list for all, unless several were made of each."""
        made = [[{self._key: text.strip()} for text in generated] for generated in outputs]
        if isinstance(item.inputs, list):
            return [one[0] for one in made] if all(len(one) == 1 for one in made) else made
        return made[0]

    def stream(self, item: Item) -> Iterator[Piece]:
        """Return the tokens of one text as they are made. Raises `PredictionInputError`."""
        return _stream(self._generator, self.rows(item), item)

    def _languages(self, item: Item) -> dict[str, Any]:
        """Tell a tokenizer of many languages which to read, and return the token that chooses which to write."""
        tokenizer = self._generator.text.tokenizer
        source, target = item.option("src_lang", str, None), item.option("tgt_lang", str, None)
        for language in filter(None, (source, target)):
            if not hasattr(tokenizer, "src_lang") or tokenizer.convert_tokens_to_ids(language) in (
                None,
                tokenizer.unk_token_id,
            ):
                raise PredictionInputError(
                    f"The model does not know the language '{language}'.", ("its language codes",)
                )
        wanted = source or self._usual_language  # what an earlier request asked for is not for this one
        if wanted and tokenizer.src_lang != wanted:
            tokenizer.src_lang = wanted
        return {"forced_bos_token_id": tokenizer.convert_tokens_to_ids(target)} if target else {}


def _stream(generator: Generator, rows: Sequence[Row], item: Item) -> Iterator[Piece]:
    sequences = max(item.option("num_beams", int, 1), item.option("num_return_sequences", int, 1))
    if len(rows) > 1 or sequences > 1:
        raise PredictionInputError("Several texts cannot be streamed in one answer.", ("one text, of one sequence",))
    return generator.pieces(rows[0])


def _prompts(item: Item) -> list[str | tuple[Mapping[str, str], ...]]:
    given = item.inputs
    if isinstance(given, dict) and isinstance(given.get("messages"), list):
        given = given["messages"]
    if _is_chat(given):
        return [tuple(given)]
    several = given if isinstance(given, list) else [given]
    if not several or not all(isinstance(one, str) or _is_chat(one) for one in several):
        raise PredictionInputError("The inputs are neither a text nor a chat.", (CHAT,))
    return [one if isinstance(one, str) else tuple(one) for one in several]


def _is_chat(given: Any) -> bool:
    return (
        isinstance(given, list)
        and bool(given)
        and all(
            isinstance(message, dict)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
            for message in given
        )
    )


def _is_several(given: Any) -> bool:
    return isinstance(given, list) and not _is_chat(given)


def _joined(given: str | tuple[Mapping[str, str], ...], text: str) -> Any:
    """Return a prompt with its continuation; of a chat that ends with an assistant's words, these go on."""
    if isinstance(given, str):
        return given + text
    if given[-1]["role"] == "assistant":
        return [*given[:-1], {**given[-1], "content": given[-1]["content"] + text}]
    return [*given, {"role": "assistant", "content": text}]


def _decoder_limit(model: Any) -> int:
    """Return how many tokens a decoder can write."""
    stated = getattr(getattr(model.config, "decoder", model.config), "max_position_embeddings", None)
    return stated - 1 if isinstance(stated, int) and stated > 1 else NO_LIMIT
