"""Tiny models with random weights, saved by sentence-transformers itself.

    python -m tests.sentence_models

writes those of tests/golden/sentence_transformers anew, each with the vectors that the library
gives for TEXTS.
"""

import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

GOLDEN = Path(__file__).parent / "golden" / "sentence_transformers"
_LONG = "the cat sat on the red mat and the dog sat on the cat again"
TEXTS = ["a red cat", "cat", "", _LONG, "zzz"]
LONGEST = 12
_WORDS = (*dict.fromkeys(_LONG.split()), "a", "blue", "##s", "##t")
# Family -> (marks in the order of their ids, pooling, dense activation or "", normalise)
SHAPES = {
    "bert": (("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), "mean", "", True),
    "distilbert": (("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), "mean", "Tanh", False),
    "xlm-roberta": (("<s>", "<pad>", "</s>", "<unk>", "<mask>"), "cls", "Identity", True),
    "mpnet": (("<s>", "<pad>", "</s>", "<unk>", "<mask>"), "max", "", False),
}
_ROLES = {
    "[PAD]": "pad", "[UNK]": "unk", "[CLS]": "cls", "[SEP]": "sep", "[MASK]": "mask",
    "<s>": "cls", "<pad>": "pad", "</s>": "sep", "<unk>": "unk", "<mask>": "mask",
}  # fmt: skip


def words_of(family: str) -> tuple[Tokenizer, dict[str, str]]:
    """A tokenizer of a dozen words, and the names of its marks by role."""
    marks = SHAPES[family][0]
    role = {_ROLES[mark]: mark for mark in marks}
    vocab = {token: i for i, token in enumerate([*marks, *_WORDS])}
    words = Tokenizer(models.WordPiece(vocab=vocab, unk_token=role["unk"]))
    words.normalizer = normalizers.NFKC()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    start, end = role["cls"], role["sep"]
    words.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, vocab[start]), (end, vocab[end])]
    )
    words.add_special_tokens(list(marks))
    return words, role


def save(family: str, folder: Path, *, seed: int = 0) -> np.ndarray:
    """Saves a random model of a family; the vectors of TEXTS."""
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as modules

    torch.manual_seed(seed)
    _, pooling, activation, normalise = SHAPES[family]
    words, role = words_of(family)
    size = words.get_vocab_size()
    sizes = {"vocab_size": size, "initializer_range": 0.3}
    common = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 24, "max_position_embeddings": 20, **sizes,
    }  # fmt: skip
    marks = {f"{name}_token": mark for name, mark in role.items()}
    made = {
        "bert": lambda: transformers.BertModel(transformers.BertConfig(**common)),
        "distilbert": lambda: transformers.DistilBertModel(
            transformers.DistilBertConfig(
                dim=16, n_layers=2, n_heads=4, hidden_dim=24, max_position_embeddings=20, **sizes
            )
        ),
        "xlm-roberta": lambda: transformers.XLMRobertaModel(
            transformers.XLMRobertaConfig(type_vocab_size=1, layer_norm_eps=1e-5, **common)
        ),
        "mpnet": lambda: transformers.MPNetModel(
            transformers.MPNetConfig(layer_norm_eps=1e-5, **common)
        ),
    }[family]()
    for parameter in made.parameters():  # biases and norms as well, so that none can hide
        parameter.data += 0.1 * torch.randn_like(parameter)
    plain = folder.with_name(folder.name + ".plain")
    made.save_pretrained(plain)
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **marks).save_pretrained(plain)
    chain = [modules.Transformer(str(plain), max_seq_length=LONGEST), modules.Pooling(16, pooling)]
    if activation:
        chain.append(modules.Dense(16, 10, activation_function=getattr(torch.nn, activation)()))
    if normalise:
        chain.append(modules.Normalize())
    model = SentenceTransformer(modules=chain, device="cpu")
    model.save(str(folder), create_model_card=False)
    return model.encode(TEXTS)


if __name__ == "__main__":
    import shutil
    import tempfile

    for family in SHAPES if len(sys.argv) < 2 else sys.argv[1:]:
        with tempfile.TemporaryDirectory() as temporary:
            vectors = save(family, Path(temporary) / family)
            shutil.rmtree(GOLDEN / family, ignore_errors=True)
            shutil.copytree(Path(temporary) / family, GOLDEN / family)
            np.save(GOLDEN / family / "vectors.npy", vectors)
