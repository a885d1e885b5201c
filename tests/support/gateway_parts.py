"""The gateway's parts without their threads."""

from __future__ import annotations

from pathlib import Path

from gateway.assembly import assemble
from gateway.jobs.job_entry import JobView
from gateway.settings import GatewaySettings
from gpu_worker.contract.job import Outcome, result_record
from gpu_worker.contract.protocol import WorkerState, WorkerStatus
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.store.result_log import ResultLog


class Parts:
    """A gateway whose threads do not run."""

    def __init__(self, folder: Path) -> None:
        settings = GatewaySettings.model_validate({"SDE_DATA_DIR": folder})
        gateway = assemble(settings, {"gpu-0": "ipc://" + str(folder / "run" / "x")})
        self.app = gateway.app
        self.services = gateway.services
        self.dispatcher = gateway.dispatchers["gpu-0"]
        self.broker = gateway.services.broker
        self.index = gateway.services.index
        self.deletion = gateway.services.deletion
        self.journal = gateway.services.journal

    def view(self, uuid: str) -> JobView:
        return self.services.lookup.view(uuid)


class Begun(Parts):
    """It has a job that its worker has just committed."""

    def __init__(self, folder: Path) -> None:
        for name in ("disk_backups", "inputs", "run"):
            (folder / name).mkdir(parents=True)
        super().__init__(folder)
        self.broker.observe(
            "gpu-0", WorkerStatus(state=WorkerState.IDLE, boot_id="b", log="", committed=0)
        )
        job = self.broker.reserve(GenerationRequest(prompt="a"))
        self.uuid = job.uuid
        self.journal.accept(job)
        self.broker.enqueue(job)
        self.broker.take("gpu-0")
        self.log = ResultLog(folder / "disk_backups", "gpu-0")
        metadata = {"image_index": 0, "num_images": 1}
        self.log.append(
            result_record(job, outcome=Outcome.SUCCEEDED, errors=[], data="eA==", metadata=metadata)
        )
