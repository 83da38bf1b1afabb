"""The image runs as unknown users, without a home, with only the volume writable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fetcher.testing.checkpoint import make_checkpoint
from fetcher.testing.origin import Origin
from tests.lab.chaos import Chaos
from tests.lab.containers import NOBODY_KNOWN, Podman
from tests.lab.fixtures import StartNginx

MiB = 1024 * 1024
_PROBE = """
import json, os
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines())
print(json.dumps([status, [name for name in os.listdir("/") if os.access(f"/{name}", os.W_OK)]]))
"""
URI = "hf://org/private"
TOKEN = "hf_of_a_reader"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "checkpoint", shards=2, shard_size=3 * MiB)


@pytest.fixture
def origin(checkpoint: Path) -> Iterator[Origin]:
    with Origin(lfs_threshold=MiB) as running:
        running.add_repo("org/private", {path.name: path for path in checkpoint.iterdir()}, private=True, readers=[TOKEN])
        yield running


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A token file like a mounted Secret."""
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o644)
    return path


@pytest.fixture(params=["the image's own", "any, of the root group", "any, of any group"])
def user(request: pytest.FixtureRequest, chaos: Chaos) -> str:
    uid, gid = (chaos.random.randrange(100_000, 2**31 - 2) for _ in range(2))
    return {"the image's own": NOBODY_KNOWN, "any, of the root group": f"{uid}:0"}.get(request.param, f"{uid}:{gid}")


def test_the_container_has_no_capabilities_and_no_writable_path(podman: Podman, image: str, user: str) -> None:
    """Checks that podman applies the restrictions that the other tests rely on."""
    done = podman.run(image, "python", "-c", _PROBE, user=user)
    status, writable = json.loads(done.stdout)
    assert [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == ["0" * 16] * 5
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split() == [user.partition(":")[0]] * 4
    assert writable == []


def test_a_private_model_can_be_fetched_verified_warmed_and_loaded(
    podman: Podman, image: str, checkpoint: Path, origin: Origin, volume: Path, token: Path, termination_log: Path, user: str
) -> None:
    fetched = podman.run(
        *(image, "env", "--unset=HOME", "fetcher", "fetch", URI, "--cache-dir", "/models", "--json"),
        user=user,
        mounts={volume: "/models", token: "/secret/token:ro", termination_log: "/dev/termination-log"},
        env={"HF_ENDPOINT": origin.endpoint, "HF_TOKEN_PATH": "/secret/token"},
    )
    assert fetched.returncode == 0, fetched.stderr
    artifact = json.loads(fetched.stdout)
    directory = volume / artifact["cache_key"]
    assert content(directory) == content(checkpoint)
    assert directory.stat().st_uid == int(user.partition(":")[0])
    message = json.loads(termination_log.read_text())
    assert (message["reason"], message["path"]) == ("Completed", artifact["path"])

    for words in (("fetcher", "verify", "--full"), ("loader", "warm"), ("loader", "load")):
        done = podman.run(image, "env", "--unset=HOME", *words, artifact["path"], user=user, mounts={volume: "/models:ro"})
        assert done.returncode == 0, done.stderr


def test_an_unwritable_directory_is_reported_in_a_sentence(podman: Podman, image: str, origin: Origin, token: Path) -> None:
    """The cache directory is on the read-only root filesystem."""
    done = podman.run(
        *(image, "fetcher", "fetch", URI, "--cache-dir", "/models"),
        mounts={token: "/secret/token:ro"},
        env={"HF_ENDPOINT": origin.endpoint, "HF_TOKEN_PATH": "/secret/token"},
    )
    assert done.returncode == 73, done.stderr
    assert "/models" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_mounted_authority_is_trusted(
    podman: Podman, image: str, nginx: StartNginx, checkpoint: Path, authority_file: Path, volume: Path
) -> None:
    authority_file.chmod(0o644)
    words = ("fetcher", "fetch", f"{nginx(checkpoint).tls_url}/config.json", "--dest", "/models")
    mounts = {volume: "/models", authority_file: "/certificates/ca.pem:ro"}
    assert podman.run(image, *words, mounts=mounts).returncode == 69
    done = podman.run(image, *words, mounts=mounts, env={"SSL_CERT_FILE": "/certificates/ca.pem"})
    assert done.returncode == 0, done.stderr
    assert (volume / "config.json").read_bytes() == (checkpoint / "config.json").read_bytes()


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
