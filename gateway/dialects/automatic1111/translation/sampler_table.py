"""The one table of samplers and schedule types: A1111's labels, their other names, and ours.

docs/clients.md shows it. The pairs are those of diffusers' documentation ("Schedulers", A1111 and
k-diffusion); stable-diffusion.cpp's names are those of its `--sampling-method` and `--scheduler`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gpu_worker.contract.capabilities import Capabilities, ModelCapabilities

Options = dict[str, bool | int | str]

_MULTISTEP, _SINGLESTEP = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
_SDE: Options = {"algorithm_type": "sde-dpmsolver++"}


@dataclass(frozen=True)
class Sampler:
    """A sampler: its class of diffusers (None: there is none), and its other names.

    `note` says in what it differs from the sampler of this name elsewhere.
    """

    label: str
    scheduler: str | None
    aliases: tuple[str, ...] = ()
    options: Options = field(default_factory=dict)
    note: str | None = None


@dataclass(frozen=True)
class ScheduleType:
    """A spacing of the noise levels, and the options of a scheduler that give it.

    `is_default` says that it is the scheduler's own. Without options it has no counterpart here.
    """

    name: str
    label: str
    options: Options = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    is_default: bool = False


_NOT_HERE = "has no counterpart here, so the model's own sampler is used"
_LIKE_2S = "has no counterpart here, so DPM++ SDE of diffusers, which is similar, is used"

SAMPLERS = (
    Sampler("DPM++ 2M", _MULTISTEP, ("k_dpmpp_2m", "dpm++2m", "dpm++2mv2")),
    Sampler("DPM++ SDE", _SINGLESTEP, ("k_dpmpp_sde",)),
    Sampler("DPM++ 2M SDE", _MULTISTEP, ("k_dpmpp_2m_sde",), _SDE),
    Sampler(
        "DPM++ 2M SDE Heun", _MULTISTEP, ("k_dpmpp_2m_sde_heun",), {**_SDE, "solver_type": "heun"}
    ),
    Sampler("DPM++ 2S a", _SINGLESTEP, ("k_dpmpp_2s_a", "dpm++2s_a"), note=_LIKE_2S),
    Sampler("DPM++ 3M SDE", _MULTISTEP, ("k_dpmpp_3m_sde",), {**_SDE, "solver_order": 3}),
    Sampler(
        "Euler a", "EulerAncestralDiscreteScheduler", ("k_euler_a", "k_euler_ancestral", "euler_a")
    ),
    Sampler("Euler", "EulerDiscreteScheduler", ("k_euler",)),
    Sampler("LMS", "LMSDiscreteScheduler", ("k_lms",)),
    Sampler("Heun", "HeunDiscreteScheduler", ("k_heun",)),
    Sampler("DPM2", "KDPM2DiscreteScheduler", ("k_dpm_2",)),
    Sampler("DPM2 a", "KDPM2AncestralDiscreteScheduler", ("k_dpm_2_a", "k_dpm_2_ancestral")),
    Sampler("DDIM", "DDIMScheduler", ("ddim",)),
    Sampler("DDPM", "DDPMScheduler"),
    Sampler("DEIS", "DEISMultistepScheduler"),
    Sampler("PLMS", "PNDMScheduler", ("pndm",)),
    Sampler("UniPC", "UniPCMultistepScheduler", ("unipc", "uni_pc", "uni_pc_bh2")),
    Sampler("LCM", "LCMScheduler", ("k_lcm", "lcm")),
    Sampler("TCD", "TCDScheduler", ("tcd",)),
    Sampler("IPNDM", "IPNDMScheduler", ("ipndm", "ipndm_v")),
    Sampler("DDIM trailing", "DDIMScheduler", ("ddim_trailing",), {"timestep_spacing": "trailing"}),
    Sampler("DPM fast", None, ("k_dpm_fast",), note=_NOT_HERE),
    Sampler("DPM adaptive", None, ("k_dpm_ad",), note=_NOT_HERE),
    Sampler("Restart", None, ("restart",), note=_NOT_HERE),
    Sampler("DDIM CFG++", None, ("ddim_cfgpp",), note=_NOT_HERE),
    Sampler("HeunPP2", None, ("heunpp2",), note=_NOT_HERE),
)

SCHEDULE_TYPES = (
    ScheduleType("automatic", "Automatic", aliases=("normal", "discrete"), is_default=True),
    ScheduleType("uniform", "Uniform", {"timestep_spacing": "linspace"}),
    ScheduleType("karras", "Karras", {"use_karras_sigmas": True}),
    ScheduleType(
        "exponential", "Exponential", {"use_exponential_sigmas": True}, ("polyexponential",)
    ),
    ScheduleType("sgm_uniform", "SGM Uniform", {"timestep_spacing": "trailing"}, ("SGMUniform",)),
    ScheduleType("simple", "Simple", {"timestep_spacing": "trailing"}),
    ScheduleType("ddim", "DDIM", {"timestep_spacing": "leading"}, ("ddim_uniform",)),
    ScheduleType("beta", "Beta", {"use_beta_sigmas": True}),
    ScheduleType("kl_optimal", "KL Optimal"),
    ScheduleType("align_your_steps", "Align Your Steps", aliases=("ays",)),
    ScheduleType("gits", "GITS"),
    ScheduleType("turbo", "Turbo"),
    ScheduleType("smoothstep", "Smoothstep"),
    ScheduleType("lcm", "LCM", is_default=True),
)

_DEFAULT_WORDS = ("", "none", "automatic", "default", "use_same_sampler", "use_same_scheduler")


class UnknownSampler(ValueError):
    """No sampler has this name. The text is the name."""


def plain(name: str) -> str:
    """Return a name in the form in which names are compared: `DPM++ 2M` is `dpmpp_2m`."""
    text = name.lower().replace("+", "p")
    return "_".join(re.sub(r"[-_\s]+", " ", text).split())


def _by_name(rows: Iterable[Any], names: str) -> dict[str, Any]:
    """Map each plain name of each row to it."""
    return {
        plain(name): row for row in rows for name in (*row.aliases, getattr(row, names), row.label)
    }


_SAMPLERS: dict[str, Sampler] = _by_name(SAMPLERS, "label")
_SCHEDULES: dict[str, ScheduleType] = _by_name(SCHEDULE_TYPES, "name")


def resolve(
    sampler_name: str | None, schedule: str | None
) -> tuple[Sampler | None, ScheduleType | None]:
    """Return the sampler and the schedule type of two names; None stands for the model's own.

    An old joint name such as `DPM++ 2M Karras` has both.

    Raises:
        UnknownSampler: no sampler has the name. An unknown schedule type is as none.
    """
    name = plain(sampler_name or "")
    joint = None
    sampler = None if name in _DEFAULT_WORDS else _SAMPLERS.get(name)
    if sampler is None and name not in _DEFAULT_WORDS:
        sampler, joint = _split(name)
        if sampler is None:
            raise UnknownSampler(sampler_name or "")
    chosen = _SCHEDULES.get(plain(schedule or "")) or joint
    if chosen is not None and chosen.name == "automatic":
        chosen = joint
    return sampler, chosen


def _split(name: str) -> tuple[Sampler | None, ScheduleType | None]:
    for ending, schedule in _SCHEDULES.items():
        if name.endswith(f"_{ending}") and name.removesuffix(f"_{ending}") in _SAMPLERS:
            return _SAMPLERS[name.removesuffix(f"_{ending}")], schedule
    return None, None


def is_schedule(name: str) -> bool:
    """Return whether a name is that of a schedule type or stands for none."""
    return plain(name) in _SCHEDULES or plain(name) in _DEFAULT_WORDS


def available(model: ModelCapabilities | None) -> list[Sampler]:
    """Return the samplers that a model runs with; those of an unknown model are all."""
    names = model.schedulers if model is not None else None
    return [
        each
        for each in SAMPLERS
        if each.scheduler is not None and (names is None or each.scheduler in names)
    ]


def native_fields(
    sampler: Sampler | None,
    schedule: ScheduleType | None,
    model: ModelCapabilities | None,
    description: Capabilities,
    notes: list[str],
) -> dict[str, Any]:
    """Return `scheduler` and `scheduler_options`, as far as the model takes them.

    Args:
        notes: gets a sentence for each part that has no effect.
    """
    scheduler: str | None = None
    options: Options = {}
    if sampler is not None:
        if sampler.note is not None:
            notes.append(f"sampler_name: {sampler.label} {sampler.note}")
        names = model.schedulers if model is not None else None
        if sampler.scheduler is not None and names is not None and sampler.scheduler not in names:
            notes.append(f"sampler_name: the model does not run with {sampler.label}")
        elif sampler.scheduler is not None:
            scheduler, options = sampler.scheduler, dict(sampler.options)
    if schedule is not None and not schedule.options and not schedule.is_default:
        notes.append(f"scheduler: {schedule.label} has no counterpart here")
    elif schedule is not None:
        options |= _accepted(schedule, scheduler, model, description, notes)
    fields: dict[str, Any] = {} if scheduler is None else {"scheduler": scheduler}
    return fields | ({"scheduler_options": options} if options else {})


def _accepted(
    schedule: ScheduleType,
    scheduler: str | None,
    model: ModelCapabilities | None,
    description: Capabilities,
    notes: list[str],
) -> Options:
    name = scheduler or (model.default("scheduler") if model is not None else None)
    known_options = description.schedulers.get(name or "")
    if known_options is None or all(each in known_options.options for each in schedule.options):
        return schedule.options
    notes.append(f"scheduler: {schedule.label} is not a schedule type of {name}")
    return {}
