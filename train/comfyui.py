"""A workflow for ComfyUI that draws with a LoRA as it was trained: the nodes and links that ComfyUI's API takes.

Names of nodes and inputs are those of ComfyUI's core nodes, as its packages comfyui-workflow-templates-json 0.1.123
and comfyui-embedded-docs 0.5.15 write them. Families that ComfyUI loads from one checkpoint file with text encoders and
autoencoder have a workflow here; the others are put together from several files, which every installation names in its
own way.
"""

from typing import Any, NamedTuple

from stylegate.configgroups import GenerateConfig

ONE_FILE = ("sd", "sdxl")  # families that ComfyUI's CheckpointLoaderSimple reads whole
CHECKPOINT = "choose-the-base-of-this-lora.safetensors"


class WorkflowSettings(NamedTuple):
    """What goes into the ComfyUI workflow that is written beside a LoRA."""

    lora_file: str  # a name in ComfyUI's folder models/loras
    prompt: str
    side: int  # pixels of the square picture
    prefix: str  # of the names of pictures
    v_prediction: bool = False  # whether the base predicts v, which its checkpoint file does not say
    zero_snr: bool = False  # whether the last noise level of the base holds no picture at all


def comfyui_workflow(facts: WorkflowSettings, settings: GenerateConfig) -> dict[str, dict[str, Any]]:
    """A workflow in the format of ComfyUI's API: nodes by number. A value [node, slot] is a link to that node's output.

    Steps and guidance are those that pictures are drawn with here; the checkpoint is to be chosen in ComfyUI.
    """

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    strengths = {"strength_model": 1.0, "strength_clip": 1.0}
    nodes = {
        "1": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "2": node("LoraLoader", model=["1", 0], clip=["1", 1], lora_name=facts.lora_file, **strengths),
        "3": node("CLIPTextEncode", clip=["2", 1], text=facts.prompt),
        "4": node("CLIPTextEncode", clip=["2", 1], text=""),
        "5": node("EmptyLatentImage", width=facts.side, height=facts.side, batch_size=1),
        "6": node(
            "KSampler",
            model=["2", 0],
            positive=["3", 0],
            negative=["4", 0],
            latent_image=["5", 0],
            seed=0,
            steps=settings.num_inference_steps,
            cfg=settings.guidance_scale,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        "7": node("VAEDecode", samples=["6", 0], vae=["1", 2]),
        "8": node("SaveImage", images=["7", 0], filename_prefix=facts.prefix),
    }
    if facts.v_prediction:
        nodes["9"] = node("ModelSamplingDiscrete", model=["2", 0], sampling="v_prediction", zsnr=facts.zero_snr)
        nodes["6"]["inputs"]["model"] = ["9", 0]
    return nodes
