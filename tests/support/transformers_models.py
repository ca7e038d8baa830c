"""Tiny transformers models of random weights, with real tokenizers, as `save_pretrained` writes them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

hf: Any = transformers  # its configurations are called with more than their types say

SENTENCES = (
    "the quick brown fox jumps over the lazy dog",
    "a man is eating a piece of bread in Berlin",
    "one two three four five six seven eight nine ten",
    "this example is about sports and politics",
    "Ünïcödé 日本語 emoji 🙂 too",
)
LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}


def word_piece() -> Any:
    """A tokenizer as BERT's, that pads with a token of its own. Its words are given: trainers break ties by chance."""
    words = sorted({word for sentence in SENTENCES[:4] for word in sentence.lower().split()})
    letters = "abcdefghijklmnopqrstuvwxyz"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *(word for word in words if len(word) > 1)]
    rare = {"berlin", "politics", "sports", "jumps"}  # of several pieces
    vocabulary = {piece: index for index, piece in enumerate(piece for piece in pieces if piece not in rare)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.decoder = decoders.WordPiece()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return _fast(tokenizer, mask_token="[MASK]", model_max_length=64, **names)


def byte_pairs(*, pad: bool = False) -> Any:
    """A tokenizer as GPT-2's: bytes, so that one character may take several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>", "<pad>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(SENTENCES[:3], trainer)
    tokenizer.decoder = decoders.ByteLevel()
    names = {"bos_token": "<s>", "eos_token": "</s>"} | ({"pad_token": "<pad>"} if pad else {})
    return _fast(tokenizer, **names)


def sentence_piece() -> Any:
    """A tokenizer as T5's, that ends a text with a token. Its pieces are given, as above."""
    words = sorted({f"▁{word}" for sentence in SENTENCES for word in sentence.split()})
    letters = sorted({letter for sentence in SENTENCES for letter in sentence.replace(" ", "▁")})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(piece, -9.0) for piece in letters] + [(word, -5.0) for word in words if len(word) > 1]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.decoder = decoders.Metaspace()
    return _fast(tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64)


def _fast(tokenizer: Tokenizer, **names: Any) -> Any:
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def save(path: Path, make: Callable[[], Any], *parts: Any, spread: float = 1.0) -> Path:
    """Write a model of random weights, made anew from one seed, and its tokenizer or processors.

    Weights as they are made at random give answers that hardly differ; a larger spread makes them differ.
    """
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(spread)
    model.save_pretrained(path)
    for part in parts:
        part.save_pretrained(path)
    return path


def bert(path: Path, model_class: Any, spread: float = 8.0, **config: Any) -> Path:
    """A BERT with a head."""
    tokenizer = word_piece()
    given = hf.BertConfig(**(SIZES | config), vocab_size=len(tokenizer), max_position_embeddings=64)
    return save(path, lambda: model_class(given), tokenizer, spread=spread)


def gpt2(path: Path, model_class: Any = hf.GPT2LMHeadModel, *, pad: bool = False, **config: Any) -> Path:
    """A GPT-2, by default one that continues texts."""
    tokenizer = byte_pairs(pad=pad)
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2 if pad else None}
    given = hf.GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=4, **(ids | config))
    return save(path, lambda: model_class(given), tokenizer, spread=8.0)


def llama(path: Path) -> Path:
    """A Llama with a chat template."""
    tokenizer = byte_pairs()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    given = hf.LlamaConfig(
        **SIZES, vocab_size=len(tokenizer), max_position_embeddings=128, bos_token_id=0, eos_token_id=1
    )
    return save(path, lambda: hf.LlamaForCausalLM(given), tokenizer, spread=8.0)


def t5(path: Path, **config: Any) -> Path:
    """A T5, whose input and output embeddings are one."""
    tokenizer = sentence_piece()
    given = hf.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, pad_token_id=0,
        eos_token_id=1, decoder_start_token_id=0, **config,
    )  # fmt: skip
    return save(path, lambda: hf.T5ForConditionalGeneration(given), tokenizer, spread=8.0)


def bart(path: Path, **config: Any) -> Path:
    """A BART."""
    tokenizer = sentence_piece()
    given = hf.BartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=37, decoder_ffn_dim=37, max_position_embeddings=64, pad_token_id=0,
        bos_token_id=1, eos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=1, **config,
    )  # fmt: skip
    return save(path, lambda: hf.BartForConditionalGeneration(given), tokenizer, spread=8.0)


def mbart(path: Path) -> Path:
    """An mBART, whose texts end with a token that says in which language they are."""
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = sorted({f"▁{word}" for sentence in SENTENCES for word in sentence.split()})
    tokenizer = hf.MBartTokenizer(vocab=[*special, ("▁", -9.0), *((word, -5.0) for word in words)])
    given = hf.MBartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=37, decoder_ffn_dim=37, max_position_embeddings=64,
    )  # fmt: skip
    return save(path, lambda: hf.MBartForConditionalGeneration(given), tokenizer, spread=8.0)


def vit(path: Path) -> Path:
    """A classifier of pictures."""
    labels = dict(enumerate(("cat", "dog", "fox")))
    given = hf.ViTConfig(**SIZES, image_size=16, patch_size=8, id2label=labels, label2id=_ids(labels))
    path = save(path, lambda: hf.ViTForImageClassification(given), spread=8.0)
    processor = {
        "image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}, "do_resize": True,
        "do_normalize": True, "do_rescale": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2,
    }  # fmt: skip
    (path / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return path


def wav2vec2(path: Path, model_class: Any = hf.Wav2Vec2ForCTC, **config: Any) -> Path:
    """A listener: to speech by default."""
    letters = ("<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz")
    path.mkdir(parents=True, exist_ok=True)
    vocabulary = path / "vocab.json"
    vocabulary.write_text(json.dumps({letter: index for index, letter in enumerate(letters)}), encoding="utf-8")
    tokenizer = hf.Wav2Vec2CTCTokenizer(str(vocabulary))
    given = hf.Wav2Vec2Config(
        **SIZES, vocab_size=len(letters), conv_dim=(16, 16), conv_kernel=(10, 4), conv_stride=(5, 4),
        num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        classifier_proj_size=16, pad_token_id=0, **config,
    )  # fmt: skip
    return save(path, lambda: model_class(given), tokenizer, hf.Wav2Vec2FeatureExtractor(), spread=4.0)


def whisper(path: Path) -> Path:
    """A listener that generates, with a window of 30 seconds, in two languages and with timestamps."""
    pairs = json.loads(byte_pairs().backend_tokenizer.to_str())["model"]
    tokenizer = hf.WhisperTokenizer(vocab=pairs["vocab"], merges=[tuple(pair) for pair in pairs["merges"]])
    names = ("endoftext", "startoftranscript", "en", "de", "translate", "transcribe", "startofprev", "notimestamps")
    tokenizer.add_tokens([f"<|{name}|>" for name in names], special_tokens=True)
    tokenizer.add_tokens([f"<|{step * 0.02:.2f}|>" for step in range(1501)])
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names}
    end = ids["endoftext"]
    given = hf.WhisperConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=37, decoder_ffn_dim=37, num_mel_bins=80, pad_token_id=end,
        bos_token_id=end, eos_token_id=end, decoder_start_token_id=ids["startoftranscript"],
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    extractor = hf.WhisperFeatureExtractor(feature_size=80)
    save(path, lambda: hf.WhisperForConditionalGeneration(given), tokenizer, extractor, spread=16.0)
    return state_generation(
        path,
        no_timestamps_token_id=ids["notimestamps"],
        prev_sot_token_id=ids["startofprev"],
        is_multilingual=True,
        lang_to_id={"<|en|>": ids["en"], "<|de|>": ids["de"]},
        task_to_id={"translate": ids["translate"], "transcribe": ids["transcribe"]},
        max_initial_timestamp_index=50,
        max_length=448,
        suppress_tokens=[token for token in ids.values() if token != end],
        begin_suppress_tokens=[end],
        return_timestamps=False,
    )


def state_generation(path: Path, **values: Any) -> Path:
    """Write into a model's generation_config.json, as published models have it."""
    file = path / "generation_config.json"
    stated = json.loads(file.read_text(encoding="utf-8"))
    stated.pop("_from_model_config", None)  # with it, the library believes the model's configuration instead
    file.write_text(json.dumps(stated | values), encoding="utf-8")
    return path


def sentence_transformer(path: Path, steps: Sequence[str] = ("Normalize",), **pooling: Any) -> Path:
    """A folder as sentence-transformers writes it: the mean of the tokens by default."""
    bert(path, hf.BertModel)
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for index, name in enumerate(("Pooling", *steps), start=1):
        step = f"{index}_{name}"
        (path / step).mkdir()
        modules.append({"idx": index, "name": str(index), "path": step, "type": f"sentence_transformers.models.{name}"})
    (path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    stated = pooling or {"pooling_mode_mean_tokens": True}
    (path / "1_Pooling/config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, **stated}), encoding="utf-8"
    )
    return path


def _ids(labels: dict[int, str]) -> dict[str, int]:
    return {name: index for index, name in labels.items()}
