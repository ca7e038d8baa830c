"""Weights of transformers models: mapped from their file, and equal to what the library loads by itself."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers_models as make
from transformers_models import hf

from mooring.handler.defaults.torch_weights import load_model
from mooring.handler.errors import ModelLoadError
from mooring.handler.terms import LoadTerms

IDS = torch.tensor([[3, 5, 7, 9, 11]])
SOUND = torch.sin(torch.arange(4000) / 20)[None]

CASES: list[tuple[str, Callable[[Path], Path], dict[str, Any]]] = [
    ("AutoModelForMaskedLM", lambda path: make.bert(path, hf.BertForMaskedLM), {"input_ids": IDS}),
    ("AutoModelForCausalLM", make.gpt2, {"input_ids": IDS}),
    ("AutoModelForCausalLM", make.llama, {"input_ids": IDS}),
    ("AutoModelForSeq2SeqLM", make.t5, {"input_ids": IDS, "decoder_input_ids": IDS}),
    ("AutoModelForSeq2SeqLM", make.bart, {"input_ids": IDS, "decoder_input_ids": IDS}),
    ("AutoModelForImageClassification", make.vit, {"pixel_values": torch.ones(1, 3, 16, 16)}),
    ("AutoModelForCTC", make.wav2vec2, {"input_values": SOUND}),
    (
        "AutoModelForSpeechSeq2Seq",
        make.whisper,
        {"input_features": torch.ones(1, 80, 3000), "decoder_input_ids": IDS},
    ),
]


@pytest.mark.parametrize(("auto_class", "build", "inputs"), CASES)
def test_loaded_model_computes_what_the_saved_one_did(
    tmp_path: Path, auto_class: str, build: Callable[[Path], Path], inputs: Any
) -> None:
    path = build(tmp_path)
    loaded = load_model(getattr(hf, auto_class), path, LoadTerms())
    plain = getattr(hf, auto_class).from_pretrained(path).eval()
    with torch.inference_mode():
        assert torch.equal(loaded(**inputs).logits, plain(**inputs).logits)


def mapped_ranges(name: str) -> list[tuple[int, int]]:
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(name):
            first, last = line.split()[0].split("-")
            ranges.append((int(first, 16), int(last, 16)))
    return ranges


@pytest.mark.parametrize(
    ("auto_class", "build"),
    [
        ("AutoModel", lambda path: make.bert(path, hf.BertModel)),
        ("AutoModelForCausalLM", make.gpt2),
        ("AutoModelForCausalLM", make.llama),
        ("AutoModelForSeq2SeqLM", make.t5),
    ],
)
def test_weights_lie_in_the_mapping_of_their_file(
    tmp_path: Path, auto_class: str, build: Callable[[Path], Path]
) -> None:
    """So hosts that load one file share its pages, and a model costs no memory that it does not touch."""
    path = build(tmp_path)
    model = load_model(getattr(hf, auto_class), path, LoadTerms())
    ranges = mapped_ranges(str(path / "model.safetensors"))
    outside = [
        name
        for name, weight in model.named_parameters()
        if not any(first <= weight.data_ptr() < last for first, last in ranges)
    ]
    assert outside == []


def test_sharded_weights_are_all_mapped(tmp_path: Path) -> None:
    path = make.llama(tmp_path / "whole")
    parts = tmp_path / "parts"
    shutil.copytree(path, parts, ignore=shutil.ignore_patterns("*.safetensors"))
    hf.AutoModelForCausalLM.from_pretrained(path).save_pretrained(parts, max_shard_size="30KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    whole = load_model(hf.AutoModelForCausalLM, path, LoadTerms())
    sharded = load_model(hf.AutoModelForCausalLM, parts, LoadTerms())
    with torch.inference_mode():
        assert torch.equal(whole(IDS).logits, sharded(IDS).logits)


def test_missing_shard_is_a_load_error(tmp_path: Path) -> None:
    path = make.llama(tmp_path / "whole")
    hf.AutoModelForCausalLM.from_pretrained(path).save_pretrained(tmp_path / "parts", max_shard_size="30KB")
    path = tmp_path / "parts"
    next(path.glob("model-00002*")).unlink()
    with pytest.raises(ModelLoadError):
        load_model(hf.AutoModelForCausalLM, path, LoadTerms())
