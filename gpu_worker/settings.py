"""The worker's settings from the environment, and how any table of settings is read.

Reads no environment by itself: `__main__` passes it in.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from gpu_worker.contract.validation_errors import display_value, error_message
from gpu_worker.quantization_libraries import Quantization

NAMES = (
    "SDE_ALLOWED_HOSTS",
    "SDE_ALLOWED_ORIGINS",
    "SDE_ALLOW_ANONYMOUS",
    "SDE_DATA_DIR",
    "SDE_DEVICE",
    "SDE_DTYPE",
    "SDE_GPU",
    "SDE_GPUS",
    "SDE_HOST",
    "SDE_KEEP_DAYS",
    "SDE_KEEP_MIB",
    "SDE_KEEP_RESULTS",
    "SDE_KEY",
    "SDE_KEYS",
    "SDE_LOG_FORMAT",
    "SDE_LOG_PROMPTS",
    "SDE_MAX_ATTEMPTS",
    "SDE_MAX_BODY_MIB",
    "SDE_MAX_CONNECTIONS",
    "SDE_MAX_HEADER_KIB",
    "SDE_MAX_IMAGES",
    "SDE_MAX_INPUT_MPIX",
    "SDE_MAX_MPIX",
    "SDE_MAX_MPIX_STEPS",
    "SDE_MAX_PROMPT_CHARS",
    "SDE_MAX_STEPS",
    "SDE_MAX_UPLOADS_MIB",
    "SDE_MAX_WAITING_PER_ADDRESS",
    "SDE_MIN_FREE_MIB",
    "SDE_MODEL",
    "SDE_MODELS_DIR",
    "SDE_ON_DISCONNECT",
    "SDE_OPENAI_ALIASES",
    "SDE_PATH_PREFIX",
    "SDE_PIPELINE",
    "SDE_PNG_METADATA",
    "SDE_PORT",
    "SDE_PYTHON",
    "SDE_QUANTIZATION",
    "SDE_QUEUE_PER_KEY",
    "SDE_QUEUE_SIZE",
    "SDE_REQUEST_TIMEOUT_S",
    "SDE_SAFETY_CHECKER",
    "SDE_SEGMENT_MIB",
    "SDE_STEP_TIMEOUT_S",
    "SDE_THUMBNAILS_MIB",
    "SDE_TRASH_DAYS",
    "SDE_TRUSTED_PROXIES",
    "SDE_UNLOAD_AFTER_S",
    "SDE_URL",
)
"""Every SDE_ name of the service; a test compares it with the tables (SDE_URL and SDE_KEY are
the client's, and SDE_PYTHON is run.sh's)."""

DEFAULT_PIPELINE = "gpu_worker.pipeline:load"


class SettingsError(ValueError):
    """A sentence for the operator: which setting, which value, what is allowed."""


def _absolute(value: object) -> object:
    if isinstance(value, str) and "://" in value:
        raise ValueError(
            "must be a folder; a worker's socket is in it, because it is ipc alone and never tcp"
        )
    return Path(value).absolute() if isinstance(value, str) and value else value


def form(pattern: str, what: str) -> AfterValidator:
    """Return a validator that refuses a text of another form; `what` names the form."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"must be {what}")
        return text

    return AfterValidator(check)


DataDir = Annotated[Path, BeforeValidator(_absolute)]


class Settings(BaseModel):
    """What gateway and worker both read. A field's alias is its name in the environment."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    data_dir: DataDir = Field(
        default_factory=lambda: Path("data").absolute(),
        alias="SDE_DATA_DIR",
        description="holds disk_backups/, model_cache/ and run/",
    )
    gpus: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, alias="SDE_GPUS", description="how many workers there are, one a GPU"
    )

    segment_mib: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=64,
        alias="SDE_SEGMENT_MIB",
        description="the size at which a log file is followed by the next",
    )

    models_folder: DataDir | None = Field(
        default=None,
        alias="SDE_MODELS_DIR",
        description="the folder of models.toml and its files; unset: SDE_DATA_DIR/models",
    )

    log_format: Literal["text", "json"] = Field(
        default="text", alias="SDE_LOG_FORMAT", description="the form of a line in the logs"
    )

    @property
    def models_dir(self) -> Path:
        """Return the folder of models.toml and of the files that it names."""
        return self.models_folder or self.data_dir / "models"

    @property
    def inputs_dir(self) -> Path:
        """Return the folder of input images, `<uuid>/<sha256>`, which the gateway writes."""
        return self.data_dir / "inputs"

    @property
    def previews_dir(self) -> Path:
        """Return the folder of previews, `<worker>.<uuid>.jpg`, which each worker writes."""
        return self.run_dir / "previews"

    @property
    def run_dir(self) -> Path:
        """Return the folder of sockets, locks and logs, which may be lost at a reboot."""
        return self.data_dir / "run"

    @property
    def results_dir(self) -> Path:
        """Return the folder of the result logs."""
        return self.data_dir / "disk_backups"

    @property
    def journal_path(self) -> Path:
        """Return the file of the gateway's journal of accepted jobs."""
        return self.data_dir / "journal" / "jobs.jsonl"

    @property
    def deletions_path(self) -> Path:
        """Return the file of deletions that have left the journal."""
        return self.data_dir / "journal" / "deleted.jsonl"

    @property
    def labels_path(self) -> Path:
        """Return the file of stars and of the trash."""
        return self.data_dir / "journal" / "labels.jsonl"

    @property
    def thumbnails_dir(self) -> Path:
        """Return the folder of thumbnails, a cache that the gateway writes."""
        return self.data_dir / "thumbnails"


class WorkerSettings(Settings):
    """The settings of a worker. docs/operations.md explains each."""

    gpu: Annotated[int, Field(ge=0, le=63)] = Field(
        default=0, alias="SDE_GPU", description="which GPU this worker owns, from 0"
    )
    model: Annotated[str, Field(min_length=1)] = Field(
        default="demo",
        alias="SDE_MODEL",
        description="demo, a name of models.toml, a directory, a .safetensors file or a hub id",
    )
    quantization: Quantization = Field(
        default="none",
        alias="SDE_QUANTIZATION",
        description="quantizes the UNet or transformer with an optional library",
    )
    unload_after_s: Annotated[float, Field(ge=0, le=86400 * 365)] = Field(
        default=0.0,
        alias="SDE_UNLOAD_AFTER_S",
        description="seconds without a job after which a worker unloads its model; 0: never",
    )
    png_metadata: Literal["on", "off"] = Field(
        default="on",
        alias="SDE_PNG_METADATA",
        description="whether PNGs have their metadata in text chunks",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", alias="SDE_DEVICE", description="where the model runs"
    )
    machine_size: Literal["big", "medium", "little", "tiny"] | None = Field(
        default=None, alias="MACHINE_SIZE", description="unset: chosen by the size of the memory"
    )
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        default="auto",
        alias="SDE_DTYPE",
        description="the dtype of the weights; auto: the family's on a GPU, float32 on a CPU",
    )
    safety_checker: Literal["on", "off"] = Field(
        default="on",
        alias="SDE_SAFETY_CHECKER",
        description="whether a model's own safety checker is loaded; it blackens some images",
    )
    pipeline: Annotated[str, form(r"[\w.]+:\w+", "a module and a function, as MODULE:NAME")] = (
        Field(
            default=DEFAULT_PIPELINE, alias="SDE_PIPELINE", description="module:factory, for fakes"
        )
    )
    step_timeout_s: Annotated[float, Field(gt=0, le=86400)] = Field(
        default=600.0,
        alias="SDE_STEP_TIMEOUT_S",
        description="a longer step ends the worker, even while it holds the GIL",
    )
    max_attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=2,
        alias="SDE_MAX_ATTEMPTS",
        description="how often a job is started when its worker dies in it",
    )

    hf_home: str = Field(
        default="",
        alias="HF_HOME",
        description="the hub library's folder; unset: SDE_DATA_DIR/model_cache",
    )
    mkl_cbwr: str = Field(
        default="", alias="MKL_CBWR", description="MKL's own setting: which code computes sums"
    )
    mkl_enable_instructions: str = Field(
        default="",
        alias="MKL_ENABLE_INSTRUCTIONS",
        description="MKL's own setting: the newest instructions that it uses",
    )
    onednn_max_cpu_isa: str = Field(
        default="",
        alias="ONEDNN_MAX_CPU_ISA",
        description="oneDNN's own setting: the newest instructions that it uses",
    )

    @property
    def rounding(self) -> dict[str, str]:
        """Return the settings of MKL and oneDNN that change rounding on a CPU, if they are set."""
        own = {
            "MKL_CBWR": self.mkl_cbwr,
            "MKL_ENABLE_INSTRUCTIONS": self.mkl_enable_instructions,
            "ONEDNN_MAX_CPU_ISA": self.onednn_max_cpu_isa,
        }
        return {name: value for name, value in own.items() if value}

    @property
    def model_cache(self) -> Path:
        """Return the folder of hub downloads, which applies unless HF_HOME is set."""
        return self.data_dir / "model_cache"

    @property
    def cache_dir(self) -> str | None:
        """Return diffusers' `cache_dir`; None is the default of the hub library."""
        return None if self.hf_home else str(self.model_cache)


Table = TypeVar("Table", bound=Settings)


def load(table: type[Table], environ: Mapping[str, str]) -> Table:
    """Read one table from an environment.

    Raises:
        SettingsError: an unknown SDE_ name or a bad value; the text lists what is allowed.
    """
    for name in environ:
        if name.startswith("SDE_") and name not in NAMES:
            raise SettingsError(_unknown(name))
    aliases = {str(field.alias) for field in table.model_fields.values()}
    values = {name: environ[name] for name in aliases if name in environ}
    for field in table.model_fields.values():
        value = values.get(str(field.alias), "0")
        # pydantic accepts "2.0" and "1_0" as integers; supervisord, which reads some too, does not.
        if field.annotation is int and not re.fullmatch("[+-]?[0-9]+", value):
            name = f"{field.alias}={display_value(value)}"
            raise SettingsError(f"{name}: must be a whole number ({field.description})")
    try:
        return table.model_validate(values)
    except ValidationError as error:
        raise SettingsError("; ".join(_fault(table, fault) for fault in error.errors())) from None


_MESSAGES = {
    **dict.fromkeys(("bool_parsing", "bool_type"), "must be 0 or 1"),
    "string_too_short": "must not be empty",
}
"""What differs from the messages of a request: a setting is a text of the environment."""


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, NAMES, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown setting {name}{hint}; the settings are {', '.join(NAMES)} and MACHINE_SIZE"


def _fault(table: type[Settings], fault: Any) -> str:
    name = str(fault["loc"][0])
    field = next(each for each in table.model_fields.values() if each.alias == name)
    is_secret = field.annotation is SecretStr
    value = "..." if is_secret else display_value(fault["input"])
    return f"{name}={value}: {error_message(fault, _MESSAGES)} ({field.description})"
