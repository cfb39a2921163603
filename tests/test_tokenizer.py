import json
import os
import subprocess
import sys

import numpy as np
import pytest

from umair_jax.data.tokenizer import SPECIAL, encode_texts, load_tokenizer, train_tokenizer

TEXTS = [
    "red frog, green frog",
    "Frogs in a Bog",
    "赤い蛙 と 青い空",
    "голубое небо и лягушка",
    "café Ångström naïve",
    "개구리 하늘",
    "ضفدع أخضر",
    "1girl (blue_eyes) 100% 🐸",
]


@pytest.fixture(scope="module")
def words():
    return train_tokenizer(TEXTS * 3, 1_000)


def test_special_tokens_come_first(words):
    assert [words.id_to_token(i) for i in range(5)] == list(SPECIAL)


@pytest.mark.parametrize("text", TEXTS)
def test_no_character_seen_is_unknown_even_in_new_words(words, text):
    assert "[UNK]" not in words.encode(text).tokens
    reordered = " ".join(word[::-1] for word in text.split())
    assert "[UNK]" not in words.encode(reordered).tokens


def test_frequent_words_are_whole_and_others_in_pieces(words):
    assert "frog" in words.encode("frog").tokens
    pieces = words.encode("frogbog").tokens[1:-1]
    assert len(pieces) > 1
    assert all(piece.startswith("##") for piece in pieces[1:])


def test_cjk_ideographs_stand_alone(words):
    assert words.encode("青空").tokens == ["[CLS]", "青", "空", "[SEP]"]


def test_width_and_case_are_folded_and_accents_kept(words):
    assert words.encode("FROG").ids == words.encode("frog").ids == words.encode("ｆｒｏｇ").ids
    assert words.encode("café").ids != words.encode("cafe").ids


def test_unseen_characters_are_unknown_and_counted(words):
    encoded = encode_texts(words, ["frog ☃", "red"], 8)
    assert encoded.unknown == 1


def test_size_limit_holds_even_when_the_alphabet_is_larger():
    assert train_tokenizer(TEXTS, 60).get_vocab_size() == 60
    tiny = train_tokenizer(["a a a b b c"], 7)
    assert set(tiny.get_vocab()) == {*SPECIAL, "a", "b"}
    with pytest.raises(ValueError, match="vocabulary_size: got 5"):
        train_tokenizer(TEXTS, 5)


def test_merges_by_frequency_worked_by_hand():
    # Pairs: ##b##c 5, a##b 3, x##b 2. First "##bc" (5), then "abc" (3), then "xbc" (2).
    vocabulary = train_tokenizer(["abc abc abc xbc xbc"], 100).get_vocab()
    order = sorted(vocabulary, key=vocabulary.get)
    assert order[-3:] == ["##bc", "abc", "xbc"]


def test_repeated_letters_merge_like_the_words_read():
    words = train_tokenizer(["aaaa aaaa aaaa"], 100)
    assert words.encode("aaaa").tokens == ["[CLS]", "aaaa", "[SEP]"]


def test_nothing_to_learn_from():
    assert train_tokenizer([], 10).get_vocab_size() == len(SPECIAL)


def test_same_texts_same_vocabulary_in_every_process(words):
    program = (
        "import json, sys; from umair_jax.data.tokenizer import train_tokenizer;"
        "texts = json.loads(sys.argv[1]); print(train_tokenizer(texts * 3, 1000).to_str())"
    )
    for seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", program, json.dumps(TEXTS)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
            encoding="utf-8",
        )
        assert json.loads(result.stdout) == json.loads(words.to_str())


def test_encoding_pads_truncates_and_leaves_the_tokenizer_alone(words):
    before = words.to_str()
    encoded = encode_texts(words, ["frog", "red frog green frog red frog", ""], 5)
    assert encoded.tokens.shape == encoded.mask.shape == (3, 5)
    assert encoded.tokens.dtype == np.int32
    assert encoded.mask.sum(1).tolist() == [3, 5, 2]
    assert encoded.truncated == 1
    assert encoded.tokens[0, 3:].tolist() == [0, 0]
    assert encoded.tokens[1, -1] == words.token_to_id("[SEP]")
    assert words.to_str() == before


def test_saved_file_loads_here_and_in_transformers(words, tmp_path):
    path = tmp_path / "tokenizer.json"
    words.save(str(path))
    assert load_tokenizer(path).to_str() == words.to_str()
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path), pad_token="[PAD]")
    batch = theirs(TEXTS, padding="max_length", max_length=24, truncation=True)
    ours = encode_texts(words, TEXTS, 24)
    np.testing.assert_array_equal(batch["input_ids"], ours.tokens)
    np.testing.assert_array_equal(batch["attention_mask"], ours.mask)


def test_missing_or_broken_file_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"expected a tokenizer.json"):
        load_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read"):
        load_tokenizer(tmp_path / "tokenizer.json")
