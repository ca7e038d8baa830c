"""A small transformers model that knows nothing yet, for machines that cannot fetch a pretrained one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
VOCABULARY = 3000
MOST_TOKENS = 64
SIZES = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192}


def write_model(folder: Path, texts: Iterable[str]) -> None:
    """Write a BERT with random weights, and a tokenizer whose pieces are those of the texts."""
    hf: Any = transformers  # its configurations are called with more than their types say
    torch.manual_seed(0)
    tokenizer = _tokenizer(texts)
    config = hf.BertConfig(**SIZES, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=MOST_TOKENS)
    hf.BertModel(config).save_pretrained(folder)
    hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MOST_TOKENS, **SPECIAL).save_pretrained(
        folder
    )


def _tokenizer(texts: Iterable[str]) -> Tokenizer:
    special = list(SPECIAL.values())
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special))
    first, last = SPECIAL["cls_token"], SPECIAL["sep_token"]
    ids = [(token, tokenizer.token_to_id(token)) for token in (first, last)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} $B:1 {last}:1", special_tokens=ids
    )
    return tokenizer
