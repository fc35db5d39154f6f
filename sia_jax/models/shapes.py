"""The shapes of a decoder's tensors, from its sizes alone: nothing is traced, built or allocated.

Sizes from a foreign file may be anything; what they would cost is known only once they have been compared
with the tensors that lie beside them.
"""

from sia_jax.models.config import ModelConfig

Shapes = dict[str, tuple[int, ...]]


def backbone_shapes(config: ModelConfig, layers: int | None = None) -> Shapes:
    """Name -> shape of every tensor of `Transformer(config)`, in the order of its tree.

    Args:
      config: the network.
      layers: describe so many of its layers; None: all.
    """
    d, f, h = config.hidden_size, config.intermediate_size, config.head_dim
    q, kv = config.num_heads * h, config.num_kv_heads * h
    attention: Shapes = {"q_proj": (q, d), "k_proj": (kv, d), "v_proj": (kv, d), "o_proj": (d, q)}
    if config.qk_norm:
        attention |= {"q_norm": (h,), "k_norm": (h,)}
    mlp: Shapes = {"gate_proj": (f, d), "up_proj": (f, d), "down_proj": (d, f)}
    layer: Shapes = {"input_layernorm": (d,), "post_attention_layernorm": (d,)}
    layer |= {f"self_attn.{name}": shape for name, shape in attention.items()}
    layer |= {f"mlp.{name}": shape for name, shape in mlp.items()}
    shapes: Shapes = {"embed_tokens.weight": (config.vocab_size, d)}
    for i in range(config.num_layers if layers is None else layers):
        shapes |= {f"layers.{i}.{name}.weight": layer[name] for name in sorted(layer)}
    return shapes | {"norm.weight": (d,)}
