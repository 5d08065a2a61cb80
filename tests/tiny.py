"""Bases of the true architectures, tiny and random, saved as their pipelines: nothing is downloaded."""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.autoencoders.autoencoder_kl_qwenimage21 import AutoencoderKLQwenImage21
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
from diffusers.models.transformers.transformer_krea2 import Krea2Transformer2DModel
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21Transformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import Flux2KleinPipeline
from diffusers.pipelines.krea2.pipeline_krea2 import Krea2Pipeline
from diffusers.pipelines.qwenimage.pipeline_qwenimage import QwenImagePipeline
from diffusers.pipelines.qwenimage21.pipeline_qwenimage21 import QwenImage21Pipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from stylegate import files

CARD = "---\nlicense: apache-2.0\n---\nRandom weights for tests.\n"
SDXL_LEVELS = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
SDXL_UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 1,  # of 2: half as many layers to adapt
    "down_block_types": SDXL_LEVELS,
    "up_block_types": tuple(name.replace("Down", "Up") for name in reversed(SDXL_LEVELS)),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (1, 2, 2),
    "cross_attention_dim": 64,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 32,
}


def clip_config(tokenizer: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        projection_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def autoencoder(shift_factor: float | None = None) -> AutoencoderKL:
    settings: dict[str, Any] = {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 4,
        "scaling_factor": 0.13025,
        "shift_factor": shift_factor,
    }
    return AutoencoderKL(**settings)


def sdxl(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(files.MODELS / "miniature" / "sd" / "tokenizer")
    parts: dict[str, Any] = {
        "vae": autoencoder(),
        "text_encoder": CLIPTextModel(clip_config(tokenizer)),
        "text_encoder_2": CLIPTextModelWithProjection(clip_config(tokenizer)),
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "unet": UNet2DConditionModel(**SDXL_UNET),
        "scheduler": EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        "add_watermarker": False,
    }
    StableDiffusionXLPipeline(**parts).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


def chat_tokenizer() -> Any:
    """Bytes alone, with a chat template."""
    named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet())]
    tokenizer: Any = Qwen2Tokenizer(vocab={token: i for i, token in enumerate(named)}, merges=[])
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
    return tokenizer


def qwen3(tokenizer: Any, layers: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )


def flux2(folder: Path) -> Path:
    """Its text encoder is read at layers 9, 18 and 27, so it has 28, narrow ones."""
    torch.manual_seed(0)
    tokenizer = chat_tokenizer()
    vae: dict[str, Any] = {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4, "latent_channels": 4}
    transformer: dict[str, Any] = {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 48,
        "timestep_guidance_channels": 16,
        "axes_dims_rope": (4, 4, 4, 4),
        "guidance_embeds": False,
    }
    parts: dict[str, Any] = {
        "vae": AutoencoderKLFlux2(**vae),
        "transformer": Flux2Transformer2DModel(**transformer),
        "text_encoder": Qwen3ForCausalLM(qwen3(tokenizer, 28)),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }
    Flux2KleinPipeline(tokenizer=tokenizer, **parts).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


def zimage(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = chat_tokenizer()
    transformer: dict[str, Any] = {
        "in_channels": 4,
        "dim": 32,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 16,
        "axes_dims": [4, 6, 6],
        "axes_lens": [1024, 64, 64],
    }
    parts: dict[str, Any] = {
        "vae": autoencoder(shift_factor=0.1159),
        "transformer": ZImageTransformer2DModel(**transformer),
        "text_encoder": Qwen3Model(qwen3(tokenizer, 3)),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }
    ZImagePipeline(tokenizer=tokenizer, **parts).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


def t5_tokenizer() -> Any:
    """Letters alone."""
    special = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    return T5Tokenizer(vocab=[*special, *((letter, -2.0) for letter in "▁ abcdefghijklmnopqrstuvwxyz0123456789,.")])


def t5(tokenizer: Any, width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


def flux(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(files.MODELS / "miniature" / "sd" / "tokenizer")
    tokenizer_2 = t5_tokenizer()
    transformer: dict[str, Any] = {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 16,
        "pooled_projection_dim": 32,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 6, 6),
    }
    parts: dict[str, Any] = {
        "vae": autoencoder(shift_factor=0.1159),
        "text_encoder": CLIPTextModel(clip_config(tokenizer)),
        "text_encoder_2": t5(tokenizer_2, 16),
        "transformer": FluxTransformer2DModel(**transformer),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }
    FluxPipeline(tokenizer=tokenizer, tokenizer_2=tokenizer_2, **parts).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


def sd3(folder: Path) -> Path:
    """3.5 medium's form: queries and keys normalised, a layer that attends twice."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(files.MODELS / "miniature" / "sd" / "tokenizer")
    tokenizer_3 = t5_tokenizer()
    transformer: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "caption_projection_dim": 32,
        "joint_attention_dim": 64,
        "pooled_projection_dim": 64,
        "pos_embed_max_size": 16,
        "dual_attention_layers": (0,),
        "qk_norm": "rms_norm",
    }
    parts: dict[str, Any] = {
        "vae": autoencoder(shift_factor=0.0609),
        "text_encoder": CLIPTextModelWithProjection(clip_config(tokenizer)),
        "text_encoder_2": CLIPTextModelWithProjection(clip_config(tokenizer)),
        "text_encoder_3": t5(tokenizer_3, 64),
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "tokenizer_3": tokenizer_3,
        "transformer": SD3Transformer2DModel(**transformer),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }
    StableDiffusion3Pipeline(**parts).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


FILM: dict[str, Any] = {  # Qwen-Image's autoencoder, which Krea 2 has as well
    "base_dim": 8,
    "z_dim": 4,
    "num_res_blocks": 1,
    "latents_mean": [-0.7571, -0.7089, -0.9113, 0.1075],
    "latents_std": [2.8184, 1.4541, 2.3275, 2.6558],
}


def qwen3_vl(tokenizer: Any, layers: int) -> Qwen3VLConfig:
    text: dict[str, Any] = qwen3(tokenizer, layers).to_dict() | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [1, 1, 2]}
    }
    vision: dict[str, Any] = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 16,
        "deepstack_visual_indexes": [0],
    }
    return Qwen3VLConfig(text_config=text | {"model_type": "qwen3_vl_text"}, vision_config=vision)


def krea2(folder: Path) -> Path:
    """Three layers of its text encoder are read, in place of twelve."""
    torch.manual_seed(0)
    tokenizer = chat_tokenizer()
    transformer: dict[str, Any] = {
        "in_channels": 16,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
        "timestep_embed_dim": 16,
        "text_hidden_dim": 16,
        "num_text_layers": 3,
        "text_num_attention_heads": 2,
        "text_num_key_value_heads": 2,
        "text_intermediate_size": 32,
        "num_layerwise_text_blocks": 1,
        "num_refiner_text_blocks": 1,
        "axes_dims_rope": (4, 6, 6),
    }
    parts: dict[str, Any] = {
        "vae": AutoencoderKLQwenImage(**FILM),
        "text_encoder": Qwen3VLModel(qwen3_vl(tokenizer, 4)),
        "transformer": Krea2Transformer2DModel(**transformer),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_image_seq_len=6400),
        "text_encoder_select_layers": (1, 2, 4),
    }
    Krea2Pipeline(tokenizer=tokenizer, **parts).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


def qwenimage(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = chat_tokenizer()
    transformer: dict[str, Any] = {
        "in_channels": 16,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 16,
        "axes_dims_rope": (4, 6, 6),
    }
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
    }
    vision: dict[str, Any] = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 16,
    }
    parts: dict[str, Any] = {
        "vae": AutoencoderKLQwenImage(**FILM),
        "text_encoder": Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)),
        "transformer": QwenImageTransformer2DModel(**transformer),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }
    QwenImagePipeline(tokenizer=tokenizer, **parts).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


def qwenimage21(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = chat_tokenizer()
    seen = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": seen})
    content = "{% for c in m.content %}{{ c.text }}{% endfor %}"
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=f"{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{content}<|im_end|>\n{{% endfor %}}",
    )
    transformer: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "context_in_dim": 16,
        "axes_dims_rope": (4, 6, 6),
    }
    vae: dict[str, Any] = FILM | {"decoder_base_dim": 8, "dim_mult": [1, 1, 1, 1, 1]}
    parts: dict[str, Any] = {
        "vae": AutoencoderKLQwenImage21(**vae),
        "text_encoder": Qwen3VLForConditionalGeneration(qwen3_vl(tokenizer, 2)),
        "transformer": QwenImage21Transformer2DModel(**transformer),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }
    QwenImage21Pipeline(processor=processor, **parts).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


BASES = {
    "sdxl": sdxl,
    "flux2": flux2,
    "zimage": zimage,
    "flux": flux,
    "qwenimage": qwenimage,
    "sd3": sd3,
    "krea2": krea2,
    "qwenimage21": qwenimage21,
}
