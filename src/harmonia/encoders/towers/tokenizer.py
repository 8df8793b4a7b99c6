"""A byte-level BPE tokenizer for any language, with NFKC normalisation and lower-casing.

References: byte-pair encoding, Sennrich et al. 2016; on bytes, Radford et al. 2019 (GPT-2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from harmonia.types import HarmoniaError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD = 0
SMALLEST = len(SPECIAL) + 256
"""The smallest vocabulary: the special tokens and all bytes."""


def train_tokenizer(texts: Iterable[str], vocabulary: int = 8192) -> Tokenizer:
    """Train a tokenizer on ``texts``.

    Args:
        texts: in any languages; the same texts in the same order give the same tokenizer.
        vocabulary: largest number of tokens, including special tokens and bytes.

    Raises:
        HarmoniaError: the vocabulary is too small for the 256 bytes, or there is no text.
    """
    if vocabulary < SMALLEST:
        raise HarmoniaError(f"a vocabulary of {vocabulary} is too small: give at least {SMALLEST}")
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[1]))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise HarmoniaError("there is no text to train a tokenizer on: give at least one non-empty text")
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, SPECIAL.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> NDArray[np.int32]:
    """Token ids ``(n, length)``: [CLS], the text, [SEP], then [PAD]. A long text is cut at its end."""
    ids = np.full((len(texts), length), PAD, dtype=np.int32)
    for row, encoding in zip(ids, tokenizer.encode_batch_fast(list(texts)), strict=True):
        tokens = encoding.ids
        if len(tokens) > length:
            tokens = tokens[: length - 1] + tokens[-1:]
        row[: len(tokens)] = tokens
    return ids


def to_json(tokenizer: Tokenizer) -> str:
    """A tokenizer as the text of a ``tokenizer.json``."""
    text: str = tokenizer.to_str()
    return text


def from_json(text: str) -> Tokenizer:
    """A tokenizer from the text of ``to_json``. HarmoniaError if it is damaged or of another kind."""
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise HarmoniaError(f"the tokenizer is damaged ({str(error)[:100]}): get its file again") from error
    if [tokenizer.id_to_token(i) for i in range(len(SPECIAL))] != list(SPECIAL):
        raise HarmoniaError(f"the tokenizer does not begin with {', '.join(SPECIAL)}: train it with Harmonia")
    return tokenizer
