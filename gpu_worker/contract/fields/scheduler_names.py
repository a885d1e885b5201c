"""Lists friendly names of schedulers: A1111's labels and the words of k-diffusion.

A name stands for a class of diffusers and some of its options. The pairs are those of diffusers'
documentation ("Schedulers", A1111 and k-diffusion). It does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

_KARRAS: dict[str, bool | str] = {"use_karras_sigmas": True}
_SDE: dict[str, bool | str] = {"algorithm_type": "sde-dpmsolver++"}
_MULTISTEP, _SINGLESTEP = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"


@dataclass(frozen=True)
class NamedScheduler:
    """A class of diffusers with the options that the name stands for."""

    scheduler: str
    scheduler_options: dict[str, bool | str] = field(default_factory=dict)


ALIASES: dict[str, NamedScheduler] = {
    "Euler": NamedScheduler("EulerDiscreteScheduler"),
    "Euler a": NamedScheduler("EulerAncestralDiscreteScheduler"),
    "Heun": NamedScheduler("HeunDiscreteScheduler"),
    "LMS": NamedScheduler("LMSDiscreteScheduler"),
    "LMS Karras": NamedScheduler("LMSDiscreteScheduler", _KARRAS),
    "DPM2": NamedScheduler("KDPM2DiscreteScheduler"),
    "DPM2 Karras": NamedScheduler("KDPM2DiscreteScheduler", _KARRAS),
    "DPM2 a": NamedScheduler("KDPM2AncestralDiscreteScheduler"),
    "DPM2 a Karras": NamedScheduler("KDPM2AncestralDiscreteScheduler", _KARRAS),
    "DPM++ 2M": NamedScheduler(_MULTISTEP),
    "DPM++ 2M Karras": NamedScheduler(_MULTISTEP, _KARRAS),
    "DPM++ 2M SDE": NamedScheduler(_MULTISTEP, _SDE),
    "DPM++ 2M SDE Karras": NamedScheduler(_MULTISTEP, _SDE | _KARRAS),
    "DPM++ SDE": NamedScheduler(_SINGLESTEP),
    "DPM++ SDE Karras": NamedScheduler(_SINGLESTEP, _KARRAS),
    "DDIM": NamedScheduler("DDIMScheduler"),
    "DDPM": NamedScheduler("DDPMScheduler"),
    "DEIS": NamedScheduler("DEISMultistepScheduler"),
    "LCM": NamedScheduler("LCMScheduler"),
    "PLMS": NamedScheduler("PNDMScheduler"),
    "TCD": NamedScheduler("TCDScheduler"),
    "UniPC": NamedScheduler("UniPCMultistepScheduler"),
}
"""By A1111's label. Each also answers to its plain form: `euler_a`, `dpmpp_2m_karras`."""

_OTHER_WORDS = {
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "euler_ancestral": "Euler a",
    "pndm": "PLMS",
    "uni_pc": "UniPC",
}
"""Words of k-diffusion and ComfyUI that are not the plain form of a label."""


def plain(name: str) -> str:
    """Return the plain form of a label: `DPM++ 2M Karras` is `dpmpp_2m_karras`."""
    return "_".join(name.lower().replace("+", "p").replace("-", " ").replace("_", " ").split())


_BY_PLAIN = {plain(name): each for name, each in ALIASES.items()} | {
    word: ALIASES[name] for word, name in _OTHER_WORDS.items()
}


def find(name: str) -> NamedScheduler | None:
    """Return what a friendly name stands for; None if it is no friendly name."""
    return _BY_PLAIN.get(plain(name))


def expand(value: object) -> object:
    """Replace a friendly name in an object with `scheduler` and `scheduler_options`.

    Options that the object has itself take precedence. Anything else is returned unchanged.
    """
    if not isinstance(value, dict) or not isinstance(value.get("scheduler"), str):
        return value
    named = find(value["scheduler"])
    if named is None:
        return value
    options = value.get("scheduler_options")
    if options is None or isinstance(options, dict):
        options = named.scheduler_options | (options or {})
    return {**value, "scheduler": named.scheduler, "scheduler_options": options}


def aliases_for(schedulers: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the friendly names of these classes as JSON."""
    classes = set(schedulers)
    return {name: vars(each) for name, each in ALIASES.items() if each.scheduler in classes}
