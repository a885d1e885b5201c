"""Every family that the tests draw: its tiny model, diffusers' classes for its tasks, its files.

docs/models.md has a row for each; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.builders import (
    tiny_chat_dits,
    tiny_dits,
    tiny_files,
    tiny_kandinsky,
    tiny_more_dits,
    tiny_unets,
)

Save = Callable[[Any, Path], None]
ALONE = "equal, transformer alone"


@dataclass(frozen=True)
class Family:
    """`image` and `inpaint` are classes of diffusers; `no_inpaint` and the like say why not.

    `files` are the routes beside the directory: by suffix, what saves them.
    """

    title: str
    build: Callable[[], Any]
    image: str = ""
    inpaint: str = ""
    files: dict[str, Save] = field(default_factory=dict)
    file: str = "has none"
    no_image: str = "has none"
    no_inpaint: str = "has none"
    takes: dict[str, Any] = field(default_factory=dict)
    """Arguments of a direct call that make it draw the size that it is asked for."""
    text: bool = True
    side: int = 64

    @property
    def row(self) -> str:
        """Of the table in docs/models.md."""
        tasks = (
            "equal" if self.text else "has none",
            "equal" if self.image else self.no_image,
            "equal" if self.inpaint else self.no_inpaint,
        )
        return " | ".join(["", self.title, "equal", self.file, *tasks, ""]).strip()


def _alone(*more: tuple[str, Save]) -> dict[str, Any]:
    """The transformer alone, in safetensors and in GGUF."""
    files = {".safetensors": tiny_files.transformer, ".gguf": tiny_files.gguf_transformer}
    return {"files": files | dict(more), "file": ALONE}


def _whole(save: Save, **more: Save) -> dict[str, Any]:
    return {"files": {".safetensors": save, **more}, "file": "equal"}


SD, XL = "StableDiffusion", "StableDiffusionXL"

FAMILIES: dict[str, Family] = {
    "sd1": Family(
        "Stable Diffusion 1.x",
        tiny_unets.sd1,
        f"{SD}Img2ImgPipeline",
        f"{SD}InpaintPipeline",
        **_whole(tiny_files.sd1),
    ),
    "sd2": Family(
        "Stable Diffusion 2.x (velocity)",
        tiny_unets.sd2,
        f"{SD}Img2ImgPipeline",
        f"{SD}InpaintPipeline",
        **_whole(tiny_files.sd2),
    ),
    "xl": Family(
        "Stable Diffusion XL",
        tiny_unets.xl,
        f"{XL}Img2ImgPipeline",
        f"{XL}InpaintPipeline",
        **_whole(tiny_files.xl),
    ),
    "lightning": Family(
        "XL Turbo, Lightning and their kin (defaults of models.toml)",
        tiny_unets.lightning,
        f"{XL}Img2ImgPipeline",
        f"{XL}InpaintPipeline",
        file="as XL",
    ),
    "lcm": Family(
        "LCM",
        tiny_unets.lcm,
        "LatentConsistencyModelImg2ImgPipeline",
        file="not supported: the layout leaves out the guidance",
    ),
    "kolors": Family("Kolors", tiny_unets.kolors, "KolorsImg2ImgPipeline"),
    "if": Family(
        "DeepFloyd IF, first stage",
        tiny_unets.deepfloyd,
        "IFImg2ImgPipeline",
        "IFInpaintingPipeline",
    ),
    "kandinsky22": Family(
        "Kandinsky 2.2, with its prior",
        tiny_kandinsky.kandinsky22,
        "KandinskyV22Img2ImgCombinedPipeline",
        no_inpaint="not supported: wants a UNet of its own",
    ),
    "kandinsky3": Family("Kandinsky 3", tiny_kandinsky.kandinsky3, "Kandinsky3Img2ImgPipeline"),
    "sd3": Family(
        "Stable Diffusion 3",
        tiny_dits.sd3,
        f"{SD}3Img2ImgPipeline",
        f"{SD}3InpaintPipeline",
        files={".safetensors": tiny_files.sd3, ".gguf": tiny_files.gguf_transformer},
        file="equal",
    ),
    "flux": Family(
        "Flux", tiny_dits.flux, "FluxImg2ImgPipeline", "FluxInpaintPipeline", **_alone()
    ),
    "kontext": Family(
        "Flux Kontext",
        tiny_dits.kontext,
        "FluxKontextPipeline",
        "FluxKontextInpaintPipeline",
        **_alone(),
        takes={"max_area": 64 * 64},
    ),
    "chroma": Family(
        "Chroma",
        tiny_dits.chroma,
        "ChromaImg2ImgPipeline",
        no_inpaint="not supported: fails in diffusers 0.42",
        **_alone(),
    ),
    "pixart-alpha": Family("PixArt-alpha", tiny_dits.pixart_alpha),
    "pixart-sigma": Family("PixArt-Sigma", tiny_dits.pixart),
    "auraflow": Family("AuraFlow", tiny_dits.auraflow, **_alone()),
    "hunyuan": Family("HunyuanDiT", tiny_dits.hunyuan, takes={"use_resolution_binning": False}),
    "cogview3": Family("CogView3-Plus", tiny_dits.cogview3),
    "cogview4": Family("CogView4", tiny_chat_dits.cogview4),
    "sana": Family("Sana", tiny_chat_dits.sana, **_alone()),
    "qwen-image": Family(
        "Qwen-Image",
        tiny_chat_dits.qwen_image,
        "QwenImageImg2ImgPipeline",
        "QwenImageInpaintPipeline",
        **_alone(),
    ),
    "lumina": Family("Lumina-Next", tiny_chat_dits.lumina),
    "lumina2": Family("Lumina 2", tiny_chat_dits.lumina2, **_alone()),
    "z-image": Family(
        "Z-Image",
        tiny_chat_dits.z_image,
        "ZImageImg2ImgPipeline",
        "ZImageInpaintPipeline",
        **_alone((".safetensors", tiny_files.z_image)),
    ),
    "flux2-klein": Family(
        "Flux 2 Klein",
        tiny_chat_dits.flux2_klein,
        "Flux2KleinPipeline",
        "Flux2KleinInpaintPipeline",
        **_alone(),
    ),
    "ovis": Family("Ovis-Image", tiny_chat_dits.ovis),
    "fill": Family("Flux Fill", tiny_dits.fill, inpaint="FluxFillPipeline", text=False, **_alone()),
    "sd1-pag": Family(
        "Perturbed attention guidance (1.x)",
        tiny_unets.sd1_pag,
        f"{SD}PAGImg2ImgPipeline",
        f"{SD}PAGInpaintPipeline",
        **_whole(tiny_files.sd1),
    ),
    "sana-sprint": Family(
        "Sana Sprint", tiny_more_dits.sana_sprint, "SanaSprintImg2ImgPipeline", **_alone()
    ),
    "bria": Family("Bria 3", tiny_more_dits.bria),
    "hidream": Family("HiDream", tiny_more_dits.hidream, side=256, **_alone()),
    "krea2": Family("Krea 2", tiny_more_dits.krea2, **_alone()),
    "hunyuan-image": Family("HunyuanImage 2.1", tiny_more_dits.hunyuan_image),
    "amused": Family(
        "aMUSEd", tiny_more_dits.amused, "AmusedImg2ImgPipeline", "AmusedInpaintPipeline"
    ),
    "kandinsky21": Family(
        "Kandinsky 2.1, with its prior",
        tiny_kandinsky.kandinsky21,
        "KandinskyImg2ImgCombinedPipeline",
        no_inpaint="not supported: wants a UNet of its own",
    ),
}
