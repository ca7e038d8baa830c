"""Generated text: continued, or made of a text by a model with encoder and decoder. Token by token, in one thread.

transformers prepares a generation and would run it to its end; here it hands over the loop, which stops when nobody
reads on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Generator as Iteration
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mooring.handler.errors import PredictionInputError

from .torch_weights import first_line
from .transformers_bodies import Item
from .transformers_rows import Row, TextModel

# As in transformers' own pipelines, for models that state nothing.
MAX_NEW_TOKENS = 256
# Tokens of the prompt that are decoded along, because some tokenizers drop the space before what they decode first.
PROMPT_TAIL = 5
CUT_CHARACTER = "\ufffd"  # what a character decodes to of which only some bytes are there
NUMBERS = (int, float)

# Parameters that transformers' GenerationConfig takes as they are.
SETTINGS: dict[str, type | tuple[type, ...]] = {
    "max_new_tokens": int,
    "max_length": int,
    "min_new_tokens": int,
    "min_length": int,
    "do_sample": bool,
    "temperature": NUMBERS,
    "top_k": int,
    "top_p": NUMBERS,
    "min_p": NUMBERS,
    "typical_p": NUMBERS,
    "repetition_penalty": NUMBERS,
    "no_repeat_ngram_size": int,
    "encoder_no_repeat_ngram_size": int,
    "num_beams": int,
    "num_return_sequences": int,
    "length_penalty": NUMBERS,
    "early_stopping": bool,
    "eos_token_id": (int, list),
}
OWN = ("seed", "stop", "stop_sequences", "return_full_text", "truncation", "src_lang", "tgt_lang")
# Sequences that one request may have at once; each has the cost of a request.
MAX_SEQUENCES = 16

# Tokens, each with whether it is the last.
Generation = Iteration[tuple[int, bool], None, None]


@dataclass(frozen=True)
class Prompt:
    """What is generated from, and how."""

    given: str | tuple[Mapping[str, str], ...]  # a text, or the messages of a chat
    settings: Mapping[str, Any]
    stops: tuple[str, ...]
    seed: int | None
    limit: int  # new tokens at most
    is_cancelled: Callable[[], bool]


@dataclass(frozen=True)
class Piece:
    """One generated token, with the text that it completes; the last says why it is the last."""

    token: int
    text: str
    count: int
    finish_reason: str | None = None


@dataclass(frozen=True)
class Generator:
    """A model that generates text, with encoder and decoder or without encoder."""

    text: TextModel

    @property
    def has_encoder(self) -> bool:
        """Whether the prompt is read by an encoder, and the generated text begins anew."""
        return bool(self.text.model.config.is_encoder_decoder)

    def sequences(self, prompt: Prompt) -> int:
        """Return how many sequences are computed at once: beams, or several answers."""
        stated = self.text.model.generation_config
        beams = prompt.settings.get("num_beams", stated.num_beams) or 1
        return max(beams, prompt.settings.get("num_return_sequences", stated.num_return_sequences) or 1)

    def pieces(self, row: Row) -> Iterator[Piece]:
        """Prepare the generation of one sequence, and return its tokens as they are made.

        Raises `PredictionInputError` before the first of them.
        """
        prompt: Prompt = row.about
        random = None
        if prompt.seed is not None:
            random = torch.Generator(self.text.model.device).manual_seed(prompt.seed)
        one = {"num_beams": 1, "num_return_sequences": 1}
        tokens = self._generate(row, custom_generate=partial(_tokens, random=random), **one)
        return self._in_text(tokens, row)

    def texts(self, row: Row) -> list[str]:
        """Return the generated texts, one or as many as were asked for. Raises `PredictionInputError`."""
        prompt: Prompt = row.about
        if self.sequences(prompt) == 1:
            return ["".join(piece.text for piece in self.pieces(row))]
        devices = [self.text.model.device] if self.text.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=prompt.seed is not None):
            if prompt.seed is not None:
                torch.manual_seed(prompt.seed)
            made = self._generate(
                row, stopping_criteria=[lambda ids, _, **__: _flags(ids, is_on=prompt.is_cancelled())]
            )
        start = 0 if self.has_encoder else len(row.inputs["input_ids"])
        return [cut_after(self.decode(tokens[start:].tolist()), prompt.stops)[0] for tokens in made]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return tokens as text, without those that mark its ends."""
        return str(self.text.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _generate(self, row: Row, **options: Any) -> Any:
        """Call transformers' own `generate`, with lengths within the model's limit."""
        prompt: Prompt = row.about
        model, tokenizer = self.text.model, self.text.tokenizer
        names = [name for name in row.inputs if name in self.text.takes]
        settings = {**prompt.settings, **options}
        if "max_length" in settings and "max_new_tokens" not in settings:
            start = 1 if self.has_encoder else len(row.inputs["input_ids"])
            settings["max_length"] = min(settings["max_length"], start + prompt.limit)
        elif "max_new_tokens" in settings or not model.generation_config.max_length:
            stated = model.generation_config.max_new_tokens or MAX_NEW_TOKENS
            settings["max_new_tokens"] = min(settings.get("max_new_tokens", stated), prompt.limit)
        if model.generation_config.pad_token_id is None:
            settings["pad_token_id"] = (
                tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
            )
        try:
            with torch.inference_mode():
                inputs = {name: torch.tensor([row.inputs[name]], device=model.device) for name in names}
                return model.generate(**inputs, **settings)
        except (ValueError, TypeError) as error:  # settings that exclude each other, or are out of range
            raise PredictionInputError(first_line(error), (f"the parameters {', '.join(SETTINGS)}",)) from error

    def _in_text(self, tokens: Generation, row: Row) -> Iterator[Piece]:
        prompt: Prompt = row.about
        shown = _ShownText(self.decode, () if self.has_encoder else row.inputs["input_ids"])
        ends = _ids(prompt.settings.get("eos_token_id", self.text.model.generation_config.eos_token_id))
        reach = max(map(len, prompt.stops), default=0)
        tail = ""  # of the text so far, where a stop may have begun
        with closing(tokens):
            for count, (token, is_last) in enumerate(tokens, start=1):
                if prompt.is_cancelled():
                    return
                text = shown.add(token) + (shown.rest() if is_last else "")
                kept, is_stopped = cut_after(tail + text, prompt.stops)
                reason = "eos_token" if token in ends else "length"
                reason = "stop_sequence" if is_stopped else reason
                is_end = is_last or is_stopped
                yield Piece(token, kept[len(tail) :], count, reason if is_end else None)
                if is_end:
                    return
                tail = (tail + text)[-reach:] if reach else ""


class _ShownText:
    """Tokens as text that grows: each character is shown when its last byte is there."""

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int]) -> None:
        self._decode = decode
        self._tokens = list(prompt[-PROMPT_TAIL:])
        self._from = 0  # decoding begins here, some tokens early for the spaces between words
        self._shown = len(self._tokens)

    def add(self, token: int) -> str:
        """Return the text that a token completes."""
        self._tokens.append(token)
        text = self._decode(self._tokens[self._from :])
        before = self._decode(self._tokens[self._from : self._shown])
        if len(text) <= len(before) or text.endswith(CUT_CHARACTER):
            return ""
        self._from, self._shown = self._shown, len(self._tokens)
        return text[len(before) :]

    def rest(self) -> str:
        """Return what was held back, a character cut short among it."""
        before = self._decode(self._tokens[self._from : self._shown])
        return self._decode(self._tokens[self._from :])[len(before) :]


def _tokens(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    random: torch.Generator | None,
    **state: Any,
) -> Generation:
    """Generate one sequence, a token a step. transformers calls this at the end of its preparations."""
    is_first, is_last = True, False
    while not is_last:
        with torch.inference_mode():  # not around the yield: the mode is the thread's, and so the caller's as well
            length = None if is_first or not state.get("use_cache") else 1
            inputs = model.prepare_inputs_for_generation(
                input_ids, next_sequence_length=length, is_first_iteration=is_first, **state
            )
            output = model(**inputs, return_dict=True)
            state = model._update_model_kwargs_for_generation(
                output, state, is_encoder_decoder=model.config.is_encoder_decoder
            )
            scores = logits_processor(input_ids, output.logits[:, -1].to(copy=True, dtype=torch.float32))
            if generation_config.do_sample:
                token = torch.multinomial(scores.softmax(dim=-1), 1, generator=random)
            else:
                token = scores.argmax(dim=-1, keepdim=True)
            input_ids = torch.cat([input_ids, token], dim=-1)
            is_last = bool(stopping_criteria(input_ids, None).all())
        is_first = False
        yield int(token.item()), is_last


def cut_after(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return a text up to the end of the first stop in it, and whether there is one."""
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    return (text[: min(ends)], True) if ends else (text, False)


def read_settings(item: Item) -> tuple[dict[str, Any], tuple[str, ...], int | None]:
    """Return the settings of a generation, the texts that stop it, and its seed. Raises `PredictionInputError`."""
    item.check_parameters((*SETTINGS, *OWN))
    settings = {name: item.option(name, SETTINGS[name], None) for name in SETTINGS}
    settings = {name: value for name, value in settings.items() if value is not None}
    for name in ("num_beams", "num_return_sequences"):
        if not 1 <= settings.get(name, 1) <= MAX_SEQUENCES:
            problem = f"'{name}' is {settings[name]}."
            raise PredictionInputError(problem, (f"'{name}', a number from 1 to {MAX_SEQUENCES}",))
    stops = [stop for name in ("stop", "stop_sequences") for stop in _list(item.option(name, (str, list), []))]
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise PredictionInputError("A stop is no text.", ("'stop', a text or a list of texts",))
    seed = item.option("seed", int, None)
    if seed is not None and not 0 <= seed < 2**63:
        raise PredictionInputError(f"'seed' is {seed}.", ("'seed', a number from 0 of 63 bits",))
    return settings, tuple(stops), seed


def _list(given: str | list[Any]) -> list[Any]:
    return [given] if isinstance(given, str) else given


def _ids(given: int | list[int] | None) -> list[int]:
    return given if isinstance(given, list) else [] if given is None else [given]


def _flags(ids: torch.Tensor, *, is_on: bool) -> torch.Tensor:
    return torch.full((ids.shape[0],), is_on, dtype=torch.bool, device=ids.device)
