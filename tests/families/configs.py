"""Families of decoders as tiny random models, with the per-block quirks that we know of switched on."""

from collections.abc import Callable
from typing import Any

import transformers

VOCAB, BLOCKS = 128, 6
COMMON: dict[str, Any] = dict(
    vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=BLOCKS, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    initializer_range=0.2, tie_word_embeddings=False,
)  # fmt: skip
GPT: dict[str, Any] = dict(
    vocab_size=VOCAB, n_embd=64, n_layer=BLOCKS, n_head=4, n_positions=256, initializer_range=0.2, bos_token_id=1,
    eos_token_id=None,
)  # fmt: skip
EXPERTS: dict[str, Any] = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
MAMBA: dict[str, Any] = dict(mamba_n_heads=8, mamba_d_head=16, mamba_expand=2, mamba_d_state=16, mamba_n_groups=1)
LATENT: dict[str, Any] = dict(kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=16)
LONG_ROPE: dict[str, Any] = dict(
    rope_type="longrope", rope_theta=10_000.0, short_factor=[1.0] * 8, long_factor=[4.0] * 8, factor=16.0,
    original_max_position_embeddings=16,
)  # fmt: skip
GROUPED: dict[str, Any] = dict(
    n_routed_experts=8, num_experts_per_tok=2, n_group=2, topk_group=1, moe_intermediate_size=32,
    first_k_dense_replace=2,
)  # fmt: skip
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**COMMON),
    "mistral": lambda: transformers.MistralConfig(**COMMON, sliding_window=8),
    "qwen3": lambda: transformers.Qwen3Config(**COMMON, head_dim=16),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(**COMMON, head_dim=16, mlp_only_layers=[1], **EXPERTS),
    "mixtral": lambda: transformers.MixtralConfig(
        **COMMON, num_local_experts=4, num_experts_per_tok=2, sliding_window=None
    ),
    "gemma2": lambda: transformers.Gemma2Config(**COMMON, head_dim=16, sliding_window=8, query_pre_attn_scalar=16),
    "phi3": lambda: transformers.Phi3Config(**COMMON),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**COMMON),
    "gpt2": lambda: transformers.GPT2Config(**GPT, pad_token_id=0),
    "opt": lambda: transformers.OPTConfig(**COMMON, ffn_dim=96, word_embed_proj_dim=64, init_std=0.2),
    "gpt_oss": lambda: transformers.GptOssConfig(
        **COMMON, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=8
    ),
    "deepseek_v3": lambda: transformers.DeepseekV3Config(
        **COMMON | {"num_key_value_heads": 4}, q_lora_rank=32, kv_lora_rank=16, qk_rope_head_dim=8,
        qk_nope_head_dim=16, v_head_dim=16, n_shared_experts=1, n_routed_experts=8, num_experts_per_tok=2, n_group=2,
        topk_group=1, moe_intermediate_size=32, first_k_dense_replace=2,
    ),
    "bloom": lambda: transformers.BloomConfig(**COMMON, n_layer=BLOCKS, n_head=4),
    "falcon": lambda: transformers.FalconConfig(
        **COMMON, new_decoder_architecture=True, num_kv_heads=2, alibi=False, bias=False, ffn_hidden_size=96
    ),
    "falcon_alibi": lambda: transformers.FalconConfig(
        **COMMON, new_decoder_architecture=False, multi_query=False, alibi=True, bias=True
    ),
    "mpt": lambda: transformers.MptConfig(
        d_model=64, n_heads=4, n_layers=BLOCKS, vocab_size=VOCAB, max_seq_len=256, expansion_ratio=2,
        initializer_range=0.2, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    ),
    "gptj": lambda: transformers.GPTJConfig(**GPT, rotary_dim=8),
    "stablelm": lambda: transformers.StableLmConfig(**COMMON),
    "llama4_text": lambda: transformers.Llama4TextConfig(
        **COMMON, head_dim=16, num_local_experts=4, num_experts_per_tok=1, intermediate_size_mlp=96,
        attention_chunk_size=8,
    ),
    "phimoe": lambda: transformers.PhimoeConfig(
        **COMMON, num_local_experts=4, num_experts_per_tok=2, sliding_window=8
    ),
    "phi3_longrope": lambda: transformers.Phi3Config(
        **COMMON, original_max_position_embeddings=16, rope_parameters=LONG_ROPE
    ),
    "qwen3_next": lambda: transformers.Qwen3NextConfig(
        **COMMON, head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16,
        linear_value_head_dim=16, shared_expert_intermediate_size=32, **EXPERTS,
    ),
}  # fmt: skip
MORE: dict[str, Callable[[], Any]] = {
    "qwen2": lambda: transformers.Qwen2Config(
        **COMMON, use_sliding_window=True, sliding_window=8, max_window_layers=3
    ),
    "qwen2_moe": lambda: transformers.Qwen2MoeConfig(**COMMON, shared_expert_intermediate_size=32, **EXPERTS),
    "gemma": lambda: transformers.GemmaConfig(**COMMON, head_dim=16),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(
        **COMMON, head_dim=16, sliding_window=8, query_pre_attn_scalar=16
    ),
    "opt_projected": lambda: transformers.OPTConfig(
        **COMMON, ffn_dim=96, word_embed_proj_dim=32, do_layer_norm_before=False, init_std=0.2
    ),
    "glm": lambda: transformers.GlmConfig(**COMMON, head_dim=16),
    "glm4": lambda: transformers.Glm4Config(**COMMON, head_dim=16),
    "glm4_moe": lambda: transformers.Glm4MoeConfig(**COMMON, head_dim=16, **GROUPED),
    "olmo": lambda: transformers.OlmoConfig(**COMMON),
    "olmo2": lambda: transformers.Olmo2Config(**COMMON),
    "olmo3": lambda: transformers.Olmo3Config(**COMMON, sliding_window=8),
    "olmoe": lambda: transformers.OlmoeConfig(**COMMON, num_experts=4, num_experts_per_tok=2),
    "cohere": lambda: transformers.CohereConfig(**COMMON),
    "cohere2": lambda: transformers.Cohere2Config(**COMMON, sliding_window=8),
    "granite": lambda: transformers.GraniteConfig(
        **COMMON, embedding_multiplier=3.0, residual_multiplier=0.5, logits_scaling=2.0
    ),
    "granitemoe": lambda: transformers.GraniteMoeConfig(**COMMON, num_local_experts=4, num_experts_per_tok=2),
    "smollm3": lambda: transformers.SmolLM3Config(**COMMON),
    "phi": lambda: transformers.PhiConfig(**COMMON),
    "starcoder2": lambda: transformers.Starcoder2Config(**COMMON, sliding_window=8),
    "deepseek_v2": lambda: transformers.DeepseekV2Config(
        **COMMON | {"num_key_value_heads": 4}, q_lora_rank=32, kv_lora_rank=16, qk_rope_head_dim=8,
        qk_nope_head_dim=16, v_head_dim=16, n_shared_experts=1, **GROUPED,
    ),
    "ernie4_5": lambda: transformers.Ernie4_5Config(**COMMON, head_dim=16),
    "exaone4": lambda: transformers.Exaone4Config(**COMMON, head_dim=16, sliding_window=8),
    "seed_oss": lambda: transformers.SeedOssConfig(**COMMON, head_dim=16),
    "hunyuan_v1_dense": lambda: transformers.HunYuanDenseV1Config(**COMMON, head_dim=16),
    "gpt_bigcode": lambda: transformers.GPTBigCodeConfig(**GPT, pad_token_id=0),
    "gpt_neo": lambda: transformers.GPTNeoConfig(
        vocab_size=VOCAB, hidden_size=64, num_layers=BLOCKS, num_heads=4, attention_types=[[["global", "local"], 3]],
        window_size=8, max_position_embeddings=256, initializer_range=0.2, bos_token_id=1, eos_token_id=None,
    ),
    "codegen": lambda: transformers.CodeGenConfig(**GPT, rotary_dim=8),
    "nemotron": lambda: transformers.NemotronConfig(**COMMON, head_dim=16),
    "persimmon": lambda: transformers.PersimmonConfig(**COMMON),
    "xglm": lambda: transformers.XGLMConfig(
        vocab_size=VOCAB, d_model=64, ffn_dim=96, num_layers=BLOCKS, attention_heads=4, max_position_embeddings=256,
        init_std=0.2, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    ),
    "biogpt": lambda: transformers.BioGptConfig(**COMMON, layerdrop=0.0, scale_embedding=True),
    "lfm2": lambda: transformers.Lfm2Config(**COMMON, layer_types=["conv", "full_attention"] * 3),
    "qwen3_5_text": lambda: transformers.Qwen3_5TextConfig(
        **COMMON, head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16,
        linear_value_head_dim=16,
    ),
    "llama_dynamic": lambda: transformers.LlamaConfig(
        **COMMON,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0},
    ),
    "phimoe_longrope": lambda: transformers.PhimoeConfig(
        **COMMON, num_local_experts=4, num_experts_per_tok=2, original_max_position_embeddings=16,
        rope_parameters=LONG_ROPE | {"short_mscale": 1.1, "long_mscale": 1.3},
    ),
    "lfm2_moe": lambda: transformers.Lfm2MoeConfig(
        **COMMON, layer_types=["conv", "full_attention"] * 3, num_dense_layers=2, **EXPERTS
    ),
    "olmo_hybrid": lambda: transformers.OlmoHybridConfig(
        **COMMON, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
    ),
    "granitemoehybrid": lambda: transformers.GraniteMoeHybridConfig(
        **COMMON, layer_types=["mamba", "attention"] * 3, num_local_experts=4, num_experts_per_tok=2,
        shared_intermediate_size=32, **MAMBA,
    ),
    "bamba": lambda: transformers.BambaConfig(**COMMON, attn_layer_indices=[1, 4], **MAMBA),
    "falcon_h1": lambda: transformers.FalconH1Config(**COMMON, mamba_d_ssm=128, **MAMBA),
    "nemotron_h": lambda: transformers.NemotronHConfig(
        **{name: value for name, value in COMMON.items() if name != "num_hidden_layers"}, head_dim=16,
        layers_block_type=["mamba", "attention", "mlp"] * 2, mamba_num_heads=8, mamba_head_dim=16, ssm_state_size=16,
        n_groups=1,
    ),
    "jamba": lambda: transformers.JambaConfig(
        **COMMON, attn_layer_period=3, attn_layer_offset=1, num_experts=4, mamba_dt_rank=8, use_mamba_kernels=False
    ),
    "bailing_hybrid": lambda: transformers.BailingHybridConfig(
        **COMMON | {"num_key_value_heads": 4}, linear_head_dim=16, linear_num_heads=4, num_shared_experts=1,
        **LATENT, **GROUPED,
    ),
    "kimi_linear": lambda: transformers.KimiLinearConfig(
        **COMMON | {"num_key_value_heads": 4}, linear_head_dim=16, linear_num_heads=4, num_shared_experts=1,
        **LATENT, **GROUPED,
    ),
    "ctrl": lambda: transformers.CTRLConfig(**GPT, dff=96, pad_token_id=0),
    "modernbert-decoder": lambda: transformers.ModernBertDecoderConfig(**COMMON, local_attention=16),
}  # fmt: skip
ALL = CONFIGS | MORE
# Which way each can be run: through Transformers' attention interface; with an attention of its own (or windows that
# are in masks alone); with state that cannot be cut, or frequencies that a whole batch shares.
GPTJ_PACKED = transformers.GPTJModel._supports_attention_backend  # since Transformers 5.24
PACKED = (
    "llama", "mistral", "qwen3", "qwen3_moe", "mixtral", "gemma2", "phi3", "gpt_neox", "gpt2", "opt", "gpt_oss",
    "deepseek_v3", *["gptj"] * GPTJ_PACKED,
)  # fmt: skip
PADDED = (
    "bloom", "falcon", "falcon_alibi", "mpt", "stablelm", "llama4_text", "phimoe", *["gptj"] * (not GPTJ_PACKED),
)  # fmt: skip
SINGLE = ("phi3_longrope", "qwen3_next")


def _default(name: str, **changes: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, f"{name}Config")(**changes)


LAYERS: dict[str, Any] = dict(
    vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
)  # fmt: skip
# Model types that cannot be served, and a part of what the user is told.
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "gemma3n_text": (_default("Gemma3nText"), "does not give its block 0 hidden states"),
    "gemma4_text": (
        _default("Gemma4Text", vocab_size_per_layer_input=VOCAB, num_hidden_layers=6, **LAYERS),
        "gives its block 0 .* beside the hidden states, made of embed_tokens",
    ),
    "deepseek_v4": (_default("DeepseekV4"), "does not give its block 0 hidden states"),
    "glm_moe_dsa": (_default("GlmMoeDsa"), "more than the hidden states of block"),
    "cpmant": (_default("CpmAnt"), r"made of position_bias\.relative_attention_bias"),
    "zamba2": (_default("Zamba2"), "shares .* between its blocks"),
    "zaya": (_default("Zaya"), "more than the hidden states of block 0"),
    "rwkv": (_default("Rwkv"), "more than the hidden states of block 0: state"),
    "albert": (_default("Albert"), "no causal LM of this kind"),
    "bert": (_default("Bert"), "attends to what comes later too: it is an encoder"),
    "roberta": (_default("Roberta"), "attends to what comes later too: it is an encoder"),
    "xlnet": (_default("XLNet"), "does not run as a plain decoder"),
    "zamba": (_default("Zamba"), "shares .* between its blocks"),
    "recurrent_gemma": (_default("RecurrentGemma"), "keeps its past in its block 0, as conv1d_state"),
    "mamba2": (_default("Mamba2"), "keeps no keys and values in the cache"),
    "openai-gpt": (_default("OpenAIGPT"), "blocks that return list"),
    "t5": (_default("T5"), "an encoder beside its decoder"),
    "bart": (_default("Bart"), "an encoder beside its decoder"),
    "whisper": (_default("Whisper"), "an encoder beside its decoder"),
    "vit": (_default("ViT"), "no causal LM of this kind"),
    "wav2vec2": (_default("Wav2Vec2"), "no causal LM of this kind"),
    "clip": (_default("CLIP"), "no causal LM of this kind"),
}
