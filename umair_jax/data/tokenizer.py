"""WordPiece vocabulary learned from a data set's own texts: any script, nothing to download."""

from __future__ import annotations

import collections
import dataclasses
import heapq
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

PAD, UNKNOWN, START, END, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# What SentencePiece vocabularies call the same marks.
OTHER_NAMES: dict[str, str] = dict(
    zip(SPECIAL, ("<pad>", "<unk>", "<s>", "</s>", "<mask>"), strict=True)
)
CONTINUATION = "##"
LONGEST_WORD = 100  # characters; WordPiece maps longer words to [UNK]
MOST_WORDS = 200_000  # distinct words that the merges are learned from, most frequent first


class EncodedTexts(NamedTuple):
    """Token ids of texts, padded to one length."""

    tokens: Int32[np.ndarray, "N L"]
    mask: Bool[np.ndarray, "N L"]
    unknown: int
    """How many tokens are [UNK]."""
    truncated: int
    """How many texts lost their end."""


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Token ids of texts without padding.

    Attributes:
        tokens: int32, those of all texts.
        lengths: int32 [N].
        starts: int64 [N], where each text begins in `tokens`.
        pad: Id of padding.
        unknown: How many tokens are [UNK].
        truncated: How many texts lost their end.
    """

    tokens: Int32[np.ndarray, " _"]
    lengths: Int32[np.ndarray, " N"]
    starts: Int64[np.ndarray, " N"]
    pad: int
    unknown: int
    truncated: int

    def padded(self, places: Integer[np.ndarray, " B"], length: int) -> Int32[np.ndarray, "B L"]:
        """Some of the texts, in rows of one length that none of them passes."""
        inside = np.arange(length) < self.lengths[places][:, None]
        rows = np.full((len(places), length), self.pad, np.int32)
        rows[inside] = self.tokens[(self.starts[places][:, None] + np.arange(length))[inside]]
        return rows


def _normaliser() -> normalizers.Normalizer:
    # BERT's own puts spaces around CJK ideographs and drops control characters; accents stay,
    # since they distinguish words in most languages.
    bert = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=True
    )
    return normalizers.Sequence([normalizers.NFKC(), bert])


def train_tokenizer(texts: Iterable[str], vocabulary_size: int = 16_000) -> Tokenizer:
    """Learns a WordPiece tokenizer.

    The vocabulary holds the special tokens, every character seen (as the start and as the
    continuation of a word) and merges of pairs by frequency, ties in alphabetical order. The same
    texts always give the same vocabulary; the trainer of the `tokenizers` library does not promise
    that (it walks hash maps seeded anew in every process), hence the merges are learned here.

    Args:
        texts: Any number of texts in any scripts.
        vocabulary_size: Upper limit. If the characters alone pass it, the rarest are left out
            and become [UNK].

    Returns:
        A tokenizer whose `save` writes a tokenizer.json that
        `transformers.PreTrainedTokenizerFast(tokenizer_file=...)` loads.

    Raises:
        ValueError: `vocabulary_size` leaves no room for characters.
    """
    if vocabulary_size <= len(SPECIAL):
        raise ValueError(
            f"vocabulary_size: got {vocabulary_size}, expected more than {len(SPECIAL)}."
        )
    normaliser, splitter = _normaliser(), pre_tokenizers.BertPreTokenizer()
    words: collections.Counter[str] = collections.Counter()
    for text in texts:
        pieces = splitter.pre_tokenize_str(normaliser.normalize_str(text))
        words.update(piece for piece, _ in pieces)
    ranked = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    vocabulary = [*SPECIAL, *_alphabet(ranked, vocabulary_size - len(SPECIAL))]
    vocabulary += _merges(ranked[:MOST_WORDS], vocabulary, vocabulary_size)
    ids = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(
        models.WordPiece(
            vocab=ids,
            unk_token=UNKNOWN,
            max_input_chars_per_word=LONGEST_WORD,
            continuing_subword_prefix=CONTINUATION,
        )
    )
    tokenizer.normalizer = normaliser  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = splitter  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=f"{START} $A {END}",
        pair=f"{START} $A {END} $B:1 {END}:1",
        special_tokens=[(START, ids[START]), (END, ids[END])],
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _alphabet(ranked: Sequence[tuple[str, int]], limit: int) -> list[str]:
    counts: collections.Counter[str] = collections.Counter()
    continues = set()
    for word, count in ranked:
        for character in word:
            counts[character] += count
        if len(word) > 1:
            continues.update(word)
    symbols = []
    for character, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        # Ideographs and punctuation always stand alone: they need no second form.
        forms = [character, CONTINUATION + character] if character in continues else [character]
        if len(symbols) + len(forms) > limit:
            break
        symbols += forms
    return sorted(symbols)


def _merges(ranked: Sequence[tuple[str, int]], vocabulary: Sequence[str], limit: int) -> list[str]:
    """Joins the most frequent neighbouring symbols until the limit or until none repeats."""
    known = set(vocabulary)
    spelled: list[list[str]] = []
    counts: list[int] = []
    for word, count in ranked:
        symbols = [word[0], *(CONTINUATION + character for character in word[1:])]
        if len(word) <= LONGEST_WORD and known.issuperset(symbols):
            spelled.append(symbols)
            counts.append(count)
    pairs: collections.Counter[tuple[str, str]] = collections.Counter()
    homes: dict[tuple[str, str], set[int]] = collections.defaultdict(set)
    for i, symbols in enumerate(spelled):
        for pair in itertools.pairwise(symbols):
            pairs[pair] += counts[i]
            homes[pair].add(i)
    # Entries of the heap go stale when a count changes; those are skipped when they surface.
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merged: list[str] = []
    while heap and len(vocabulary) + len(merged) < limit:
        count, pair = heapq.heappop(heap)
        if pairs[pair] != -count or count > -2:
            continue
        token = pair[0] + pair[1].removeprefix(CONTINUATION)
        if token not in known:  # two different pairs can spell the same token
            known.add(token)
            merged.append(token)
        changed = set()
        for i in homes.pop(pair):
            before = spelled[i]
            after = _join(before, pair, token)
            for old in itertools.pairwise(before):
                pairs[old] -= counts[i]
                changed.add(old)
            for new in itertools.pairwise(after):
                pairs[new] += counts[i]
                homes[new].add(i)
                changed.add(new)
            spelled[i] = after
        for touched in changed:
            if pairs[touched] > 0:
                heapq.heappush(heap, (-pairs[touched], touched))
    return merged


def _join(symbols: Sequence[str], pair: tuple[str, str], token: str) -> list[str]:
    joined, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            joined.append(token)
            i += 2
        else:
            joined.append(symbols[i])
            i += 1
    return joined


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Reads a tokenizer.json, one of ours or one of any BERT-like model.

    Raises:
        ValueError: The file is missing or is not a tokenizer.
    """
    if not Path(path).is_file():
        raise ValueError(f"tokenizer: got {str(path)!r}, expected a tokenizer.json file.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"tokenizer: {str(path)!r} cannot be read: {error}") from error


def table_size(tokenizer: Tokenizer) -> int:
    """Rows that a table of its tokens needs: one more than the largest id."""
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)


def find_mark(tokenizer: Tokenizer, mark: str) -> str | None:
    """The name that a tokenizer has for one of SPECIAL; None where it has no such mark."""
    names = (mark, OTHER_NAMES[mark])
    return next((name for name in names if tokenizer.token_to_id(name) is not None), None)


def encode_ragged(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> Ragged:
    """Texts to token ids, one after the other.

    Args:
        tokenizer: Left as it is: no truncation or padding is switched on in it.
        texts: Any texts; an empty one has its start and end marks only.
        max_tokens: Longest text, marks included. The end of longer ones is cut off.

    Raises:
        ValueError: `max_tokens` below 3.
    """
    if max_tokens < 3:
        raise ValueError(f"max_tokens: got {max_tokens}, expected at least 3.")
    worker = Tokenizer.from_str(tokenizer.to_str())
    worker.no_padding()
    worker.enable_truncation(max_tokens)
    encodings = worker.encode_batch(list(texts))
    lengths = np.array([len(encoding.ids) for encoding in encodings], np.int32)
    ids = itertools.chain.from_iterable(encoding.ids for encoding in encodings)
    unknown, pad = (find_mark(worker, mark) for mark in (UNKNOWN, PAD))
    flat = np.fromiter(ids, np.int32, int(lengths.sum()))
    return Ragged(
        tokens=flat,
        lengths=lengths,
        starts=np.cumsum(lengths, dtype=np.int64) - lengths,
        pad=(pad and worker.token_to_id(pad)) or 0,
        unknown=0 if unknown is None else int((flat == worker.token_to_id(unknown)).sum()),
        truncated=sum(bool(encoding.overflowing) for encoding in encodings),
    )


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> EncodedTexts:
    """Texts to token ids padded to `max_tokens`; see encode_ragged."""
    ragged = encode_ragged(tokenizer, texts, max_tokens)
    tokens = ragged.padded(np.arange(len(texts)), max_tokens)
    mask = np.arange(max_tokens) < ragged.lengths[:, None]
    return EncodedTexts(tokens, mask, ragged.unknown, ragged.truncated)
