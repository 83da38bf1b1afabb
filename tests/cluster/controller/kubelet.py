"""The kubelet of Jobs' pods, played: it runs the very command of a pod as a process, with the variables that the pod would get,
and reports its last word."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.client import Missing
from cluster.client.endpoints import PODS, SECRETS
from tests.cluster.controller.playing import Document, Stage

MOUNT = "/models"


@dataclass(frozen=True, slots=True)
class Kubelet:
    """Runs the pods of Jobs. `volume` is the directory of the claim."""

    stage: Stage
    volume: Path

    async def pods(self) -> list[Document]:
        return (await self.stage.api.list(PODS, self.stage.tenant)).items

    async def next_pod(self) -> Document:
        """Wait for a pod that has not ended."""
        found: list[Document] = []

        async def there() -> bool:
            found[:] = [each for each in await self.pods() if each.get("status", {}).get("phase") == "Pending"]
            return bool(found)

        await self.stage.until("a Job has a pod", there)
        return found[0]

    async def run(self, pod: Document) -> int:
        """Run a pod's command to its end and report it, as a kubelet does."""
        (container,) = pod["spec"]["containers"]
        log = self.volume.parent / "termination-log"
        log.unlink(missing_ok=True)
        words = [each.replace(MOUNT, str(self.volume)) if each.endswith(f"={MOUNT}") else each for each in container["args"]]
        environment = {each["name"]: await self._value(each) for each in container["env"]}
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "fetcher", *words, "--retry-for", "1s"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.volume.parent),
                "FETCHER_TERMINATION_LOG": str(log),
                **environment,
            },
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert log.exists(), done.stderr
        await self.report(pod, done.returncode, log.read_text())
        return done.returncode

    async def report(self, pod: Document, code: int, message: str) -> None:
        moment = "2026-01-01T00:00:00Z"
        state = {"exitCode": code, "message": message, "startedAt": moment, "finishedAt": moment}
        of_container = {
            "name": "fetch", "ready": False, "restartCount": 0, "image": "i", "imageID": "i", "state": {"terminated": state}
        }  # fmt: skip
        status = {"phase": "Succeeded" if code == 0 else "Failed", "containerStatuses": [of_container]}
        with suppress(Missing):  # its Job was superseded meanwhile
            await self.stage.api.merge(
                PODS, pod["metadata"]["name"], self.stage.tenant, {"status": status}, subresource="status"
            )

    async def _value(self, variable: Document) -> str:
        if "value" in variable:
            return str(variable["value"])
        reference = variable["valueFrom"]["secretKeyRef"]
        secret = await self.stage.api.get(SECRETS, reference["name"], self.stage.tenant)
        return base64.b64decode(secret["data"][reference["key"]]).decode()
