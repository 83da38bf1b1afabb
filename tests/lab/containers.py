"""Run an image with Debian's podman, as a user unknown to the image, with only mounts writable."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.lab.availability import missing, program, require_root

RESTRICTED = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges")
"""The requirements of the restricted pod security standard, and a read-only root filesystem without any tmpfs."""

NOBODY_KNOWN = "65532:65532"

_CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
"""crun refuses machines with both versions of cgroups, no systemd creates groups or keeps logs, and limits cannot exceed those
of the machine."""

_NETAVARK = "/usr/lib/podman/netavark"


@dataclass(frozen=True, slots=True)
class Podman:
    """Podman with `configuration`, the lab's containers.conf: the machine's is neither changed nor read."""

    executable: str
    configuration: Path

    def __call__(self, *words: str | Path, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a podman command and return the result, whatever its exit code. Raises subprocess.TimeoutExpired."""
        return subprocess.run(
            [self.executable, *map(str, words)],
            env=self.environment(),
            cwd=self.configuration.parent,  # where conmon leaves a file `oom` for a container that ran out of memory
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def environment(self) -> dict[str, str]:
        """Return the environment for other programs that call podman."""
        return {**os.environ, "CONTAINERS_CONF": str(self.configuration)}

    def has_image(self, name: str) -> bool:
        return self("image", "exists", name).returncode == 0

    def run(
        self,
        image: str,
        *words: str | Path,
        user: str = NOBODY_KNOWN,
        mounts: Mapping[Path, str] | None = None,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run the image to its end, restricted, on this machine's network. Return its output and exit code.

        Exit codes 125 to 127 are podman's own; 137 is an OOM kill. `mounts`: path on this machine → path in the container, with
        podman's options after a colon.
        """
        with self.started(image, *words, user=user, mounts=mounts, env=env, options=options) as container:
            code = container.wait(timeout=timeout)
            logs = self("logs", container.name)
        return subprocess.CompletedProcess(words, code, logs.stdout, logs.stderr)

    @contextmanager
    def started(
        self,
        image: str,
        *words: str | Path,
        user: str = NOBODY_KNOWN,
        mounts: Mapping[Path, str] | None = None,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> Iterator[Container]:
        """Start the image without waiting for its end. It is removed at the end of the block."""
        name = f"weightlift-{os.getpid()}-{next(_numbers)}"
        volumes = [f"--volume={path}:{target}" for path, target in (mounts or {}).items()]
        variables = [f"--env={key}={value}" for key, value in (env or {}).items()]
        settings = ["--network=host", f"--user={user}", *RESTRICTED, *volumes, *variables, *options]
        try:
            created = self("run", "--detach", f"--name={name}", *settings, image, *words)
            if created.returncode:
                raise AssertionError(f"podman could not start {image}: {created.stderr}")
            yield Container(self, name)
        finally:
            self("rm", "--force", "--time=0", name)


@dataclass(frozen=True, slots=True)
class Container:
    podman: Podman
    name: str

    def wait(self, *, timeout: float = 60.0) -> int:
        """Wait for the end and return the exit code. Raises subprocess.TimeoutExpired."""
        return int(self.podman("wait", self.name, timeout=timeout).stdout)

    def is_running(self) -> bool:
        return self.podman("inspect", "--format={{.State.Running}}", self.name).stdout.strip() == "true"

    def kill(self) -> None:
        """Send SIGKILL, as the kernel does when memory runs out."""
        self.podman("kill", "--signal=KILL", self.name)

    def stop(self, *, grace: int = 30) -> None:
        """Stop as the kubelet does: SIGTERM, and SIGKILL after `grace` seconds."""
        self.podman("stop", f"--time={grace}", self.name, timeout=grace + 30)

    def logs(self) -> str:
        """Return stdout followed by stderr."""
        done = self.podman("logs", self.name)
        return done.stdout + done.stderr


_numbers = count()


def podman_in(workspace: Path) -> Podman:
    """Return the machine's podman. Skips or fails the test if podman or a program that it needs is missing."""
    executable = program("podman", package="podman")
    require_root("run containers")
    program("runc", package="runc")
    if not Path(_NETAVARK).exists():
        missing("netavark", "on Debian: apt-get install netavark")
    configuration = workspace / "containers.conf"
    configuration.write_text(_CONFIGURATION)
    return Podman(executable, configuration)
