"""How Hugging Face calls the arrays of BERT, XLM-R, DistilBERT and MPNet.

torch keeps the matrix of a linear layer as [out, in]. What is there for pre-training alone, and the
pooler, which no sentence vector goes through, is dropped by rules of its own.
"""

from __future__ import annotations

from umair_jax.interop.key_map import Rule, Transform

COUNTER = "counter of positions"
POOLER = "pooler, not used by sentence vectors"


def _linear(theirs: str, ours: str) -> tuple[Rule, Rule]:
    return (
        Rule(f"{theirs}.weight", f"{ours}/kernel", Transform.LINEAR),
        Rule(f"{theirs}.bias", f"{ours}/bias"),
    )


def _norm(theirs: str, ours: str) -> tuple[Rule, Rule]:
    return Rule(f"{theirs}.weight", f"{ours}/scale"), Rule(f"{theirs}.bias", f"{ours}/bias")


_OURS = "transformer/layer{l}"

_EMBEDDINGS = (
    Rule("embeddings.word_embeddings.weight", "transformer/tokens"),
    Rule("embeddings.position_embeddings.weight", "transformer/positions"),
    *_norm("embeddings.LayerNorm", "transformer/norm"),
    Rule("embeddings.position_ids", "", reason=COUNTER),
    Rule("embeddings.token_type_ids", "", reason=COUNTER),
    Rule("pooler.dense.weight", "", reason=POOLER),
    Rule("pooler.dense.bias", "", reason=POOLER),
)


def _feed_forward(layer: str) -> tuple[Rule, ...]:
    return (
        *_linear(f"{layer}.intermediate.dense", f"{_OURS}/ffn_in"),
        *_linear(f"{layer}.output.dense", f"{_OURS}/ffn_out"),
        *_norm(f"{layer}.output.LayerNorm", f"{_OURS}/ffn_norm"),
    )


_BERT_LAYER, _DISTILBERT_LAYER = "encoder.layer.{l}", "transformer.layer.{l}"

BERT = (
    *_EMBEDDINGS,
    Rule("embeddings.token_type_embeddings.weight", "transformer/types"),
    *_linear(f"{_BERT_LAYER}.attention.self.query", f"{_OURS}/query"),
    *_linear(f"{_BERT_LAYER}.attention.self.key", f"{_OURS}/key"),
    *_linear(f"{_BERT_LAYER}.attention.self.value", f"{_OURS}/value"),
    *_linear(f"{_BERT_LAYER}.attention.output.dense", f"{_OURS}/out"),
    *_norm(f"{_BERT_LAYER}.attention.output.LayerNorm", f"{_OURS}/attention_norm"),
    *_feed_forward(_BERT_LAYER),
)

MPNET = (
    *_EMBEDDINGS,
    Rule("encoder.relative_attention_bias.weight", "transformer/distances"),
    *_linear(f"{_BERT_LAYER}.attention.attn.q", f"{_OURS}/query"),
    *_linear(f"{_BERT_LAYER}.attention.attn.k", f"{_OURS}/key"),
    *_linear(f"{_BERT_LAYER}.attention.attn.v", f"{_OURS}/value"),
    *_linear(f"{_BERT_LAYER}.attention.attn.o", f"{_OURS}/out"),
    *_norm(f"{_BERT_LAYER}.attention.LayerNorm", f"{_OURS}/attention_norm"),
    *_feed_forward(_BERT_LAYER),
)

DISTILBERT = (
    *_EMBEDDINGS,
    *_linear(f"{_DISTILBERT_LAYER}.attention.q_lin", f"{_OURS}/query"),
    *_linear(f"{_DISTILBERT_LAYER}.attention.k_lin", f"{_OURS}/key"),
    *_linear(f"{_DISTILBERT_LAYER}.attention.v_lin", f"{_OURS}/value"),
    *_linear(f"{_DISTILBERT_LAYER}.attention.out_lin", f"{_OURS}/out"),
    *_norm(f"{_DISTILBERT_LAYER}.sa_layer_norm", f"{_OURS}/attention_norm"),
    *_linear(f"{_DISTILBERT_LAYER}.ffn.lin1", f"{_OURS}/ffn_in"),
    *_linear(f"{_DISTILBERT_LAYER}.ffn.lin2", f"{_OURS}/ffn_out"),
    *_norm(f"{_DISTILBERT_LAYER}.output_layer_norm", f"{_OURS}/ffn_norm"),
)

# The dense layer that sentence-transformers puts after the pooling, in a file of its own.
DENSE = _linear("linear", "dense")

# What models with a head for pre-training put before the arrays of the encoder.
PREFIXES = ("bert.", "roberta.", "distilbert.", "mpnet.")
