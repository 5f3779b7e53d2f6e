"""ASTs of transformers' with random weights, in its own files and in those of the original release."""

import re

import torch
from safetensors import safe_open
from transformers import ASTConfig, ASTForAudioClassification

TOLERANCE = 1e-4
SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "max_length": 96,
    "num_mel_bins": 64,
    "num_labels": 11,
    "frequency_stride": 10,
    "time_stride": 10,
}

_RELEASED = {
    "embeddings.cls_token": "v.cls_token",
    "embeddings.distillation_token": "v.dist_token",
    "embeddings.position_embeddings": "v.pos_embed",
    "embeddings.patch_embeddings.projection": "v.patch_embed.proj",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "layernorm": "v.norm",
}


def random_ast(*, seed=1, std=0.05, **settings):
    """Return an AST of transformers' in which no two parameters are alike.

    As it makes them, LayerNorms are one and zero, tokens and positions zero: nothing to tell apart.
    """
    torch.manual_seed(seed)
    model = ASTForAudioClassification(ASTConfig(**settings)).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("layernorm" in name and name.endswith("weight")), std=std)
    return model


def metadata_of(file):
    """Return the metadata in the header of a safetensors file."""
    with safe_open(file, framework="pt") as opened:
        return opened.metadata()


def released(tensors):
    """Return the tensors of a file of transformers' under the release's names, with DeiT's unused heads."""
    state = {
        f"module.mlp_head.{index}.{kind}": tensors[f"classifier.{name}.{kind}"]
        for index, name in enumerate(("layernorm", "dense"))
        for kind in ("weight", "bias")
    }
    for key, tensor in tensors.items():
        inner = key.removeprefix("audio_spectrogram_transformer.")
        if inner == key:
            continue
        block = re.match(r"encoder\.layer\.(\d+)\.(.*)", inner)
        prefix, rest = (f"v.blocks.{block[1]}.", block[2]) if block else ("", inner)
        if part := re.match(r"attention\.attention\.query\.(weight|bias)", rest):
            others = (key.replace("query", name) for name in ("query", "key", "value"))
            state[f"module.{prefix}attn.qkv.{part[1]}"] = torch.cat([tensors[other] for other in others])
        elif not rest.startswith("attention.attention."):
            stem = next(stem for stem in _RELEASED if rest == stem or rest.startswith(f"{stem}."))
            state[f"module.{prefix}{rest.replace(stem, _RELEASED[stem], 1)}"] = tensor
    dim = tensors["classifier.layernorm.weight"].shape[0]
    for head in ("head", "head_dist"):
        state |= {f"module.v.{head}.weight": torch.zeros(1000, dim), f"module.v.{head}.bias": torch.zeros(1000)}
    return state


def quiet(model):
    """Make the variances that all LayerNorms divide by so small that their eps decides what comes out."""
    for name, parameter in model.named_parameters():
        if "embeddings" in name or "o_proj" in name or "fc2" in name:
            parameter.mul_(1e-5)
        elif name.startswith("audio_spectrogram_transformer.layernorm"):
            parameter.mul_(1e-3)
    return model


def set_eps(model, *, blocks, head):
    """Give every LayerNorm of transformers' AST this eps, and another to that of its head."""
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = blocks
    model.classifier.layernorm.eps = head


def check_equal(ours, theirs, spectrogram):
    """Compare the tokens, what every block gives, the embedding and the logits, in one pass of each network."""
    after = []
    hooks = [block.register_forward_hook(lambda _block, _inputs, out: after.append(out)) for block in ours.blocks]
    with torch.inference_mode():
        expected = theirs(spectrogram, output_hidden_states=True)
        embedding = ours.embed(spectrogram)
        ours.blocks[-1](after[-1])  # of which an embedding computes no more than it needs
    for hook in hooks:
        hook.remove()
    with torch.inference_mode():
        hidden = [ours.tokens(spectrogram), *after]
        for found, wanted in zip(hidden, expected.hidden_states, strict=True):
            torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)
        pooled = theirs.base_model.layernorm(expected.hidden_states[-1])[:, :2].mean(dim=1)
        torch.testing.assert_close(embedding, pooled, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(ours.logits(embedding), expected.logits, atol=TOLERANCE, rtol=0)
