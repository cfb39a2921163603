"""How timm, torchvision and Hugging Face call the arrays of a bottleneck ResNet.

timm and torchvision share one set of names. All three keep convolutions as OIHW and give every
BatchNorm a counter of batches. A classifier is dropped, like those counters, by rules of their own.
"""

from __future__ import annotations

from umair_jax.interop.key_map import Rule, Transform

HEAD = "classifier"
COUNTER = "counter of batches"


def _norm(theirs: str, ours: str) -> tuple[Rule, ...]:
    leaves = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    return (
        *(Rule(f"{theirs}.{there}", f"{ours}/{here}") for there, here in leaves.items()),
        Rule(f"{theirs}.num_batches_tracked", "", reason=COUNTER),
    )


def _convolution(theirs: str, ours: str) -> Rule:
    return Rule(f"{theirs}.weight", f"{ours}/kernel", Transform.CONVOLUTION)


_STEM, _BLOCK = "backbone", "backbone/layer{s}/block{b}"

TIMM = (
    _convolution("conv1", f"{_STEM}/conv1"),
    *_norm("bn1", f"{_STEM}/bn1"),
    _convolution("layer{s}.{b}.conv{n}", f"{_BLOCK}/conv{{n}}"),
    *_norm("layer{s}.{b}.bn{n}", f"{_BLOCK}/bn{{n}}"),
    _convolution("layer{s}.{b}.downsample.0", f"{_BLOCK}/downsample_conv"),
    *_norm("layer{s}.{b}.downsample.1", f"{_BLOCK}/downsample_bn"),
    Rule("fc.weight", "", reason=HEAD),
    Rule("fc.bias", "", reason=HEAD),
)

_LAYER = "encoder.stages.{s-1}.layers.{b}"

HUGGINGFACE = (
    _convolution("embedder.embedder.convolution", f"{_STEM}/conv1"),
    *_norm("embedder.embedder.normalization", f"{_STEM}/bn1"),
    _convolution(f"{_LAYER}.layer.{{n-1}}.convolution", f"{_BLOCK}/conv{{n}}"),
    *_norm(f"{_LAYER}.layer.{{n-1}}.normalization", f"{_BLOCK}/bn{{n}}"),
    _convolution(f"{_LAYER}.shortcut.convolution", f"{_BLOCK}/downsample_conv"),
    *_norm(f"{_LAYER}.shortcut.normalization", f"{_BLOCK}/downsample_bn"),
    Rule("classifier.1.weight", "", reason=HEAD),
    Rule("classifier.1.bias", "", reason=HEAD),
)

# DataParallel's, then what self-supervised and detection code puts before a backbone.
PREFIXES = ("module.", "backbone.", "resnet.")
