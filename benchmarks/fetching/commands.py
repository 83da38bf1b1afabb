"""The commands that download a repository: for each program, the settings that its users know to be fast.

No command opens more connections than the scenario allows, so that none gets a larger share of the server.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import downloading
from benchmarks.downloading import range_length, write_addresses
from benchmarks.fetching.server import Server
from benchmarks.installation import PATH
from benchmarks.publishing import Repository
from benchmarks.surroundings import mask

CLIENTS = Path(__file__).parent / "clients"


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs under test. `peers` is the Python of the peers' environment.

    `lean` are variables that disable hashing and probing in the fetcher, for the rows that compare processor time.
    """

    fetcher: str
    peers: str
    lean: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """The input of a command; `lists` is the directory of address lists for clients (`write_lists`)."""

    server: Server
    destination: Path
    connections: int
    lists: Path
    programs: Programs

    @property
    def repository(self) -> Repository:
        return self.server.repository

    @property
    def range_length(self) -> int:
        """Bytes of a request if all clients use equal ranges."""
        return range_length(self.repository.shape.total, self.connections)

    def addresses(self, *, asked: bool) -> str:
        """Return the list of the CDN's addresses, or of those that the Hub is `asked` for (`write_lists`)."""
        return str(self.lists / ("asked" if asked else "addresses"))


Command = Callable[[Task], Sequence[str]]


def write_lists(server: Server, directory: Path) -> Path:
    """Write lists for clients that do not know the Hub. With `addresses`, those behind its redirects, a client skips listing
    and redirect; with `asked`, the Hub's own, it skips the listing only."""
    directory.mkdir(parents=True, exist_ok=True)
    files = [(server.address(file.name), file.name, file.size) for file in server.repository.files]
    write_addresses(directory / "addresses", files)
    write_addresses(directory / "asked", [(server.hub_address(name), name, size) for _, name, size in files])
    (directory / "aria2").write_text("".join(f"{url}\n  out={name}\n" for url, name, _ in files))
    (directory / "curl").write_text("".join(f'url = "{url}"\noutput = "{name}"\n' for url, name, _ in files))
    return directory


def environment(server: Server, home: Path) -> dict[str, str]:
    """Return the environment of every contender: the local Hub and CA. Of the user's variables it has OpenSSL's mask only."""
    environ = {
        "PATH": PATH,
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "HF_ENDPOINT": server.hub,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    if server.authority:
        environ |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), str(server.authority))
    return environ | mask()


def fetch(*flags: str, undigested: bool = False, lean: bool = False) -> Command:
    def command(task: Task) -> Sequence[str]:
        source = f"hf://{task.repository.undigested if undigested else task.repository.name}"
        words = ["fetch", source, f"--dest={task.destination}", f"--max-concurrency={task.connections}", "--progress=none"]
        return [*(["env", *task.programs.lean] if lean else []), task.programs.fetcher, *words, *flags]

    return command


def verify(*flags: str) -> Command:
    return lambda task: [task.programs.fetcher, "verify", str(task.destination), *flags]


def hf_transfer(*, chunk: int | None = None, share: int = 1, processes: int = 1, asked: bool = False) -> Command:
    """hf_transfer with `processes`, each with 1/`share` of the connections.

    `chunk`: bytes of a request; None: as the fetcher and the loop.
    """

    def command(task: Task) -> Sequence[str]:
        numbers = [
            f"--max-files={max(1, task.connections // share)}",
            f"--chunk-size={chunk or task.range_length}",
            f"--processes={processes}",
        ]
        lists = task.addresses(asked=asked)
        return [task.programs.peers, str(CLIENTS / "hf_transfer_files.py"), lists, str(task.destination), *numbers]

    return command


def snapshot(most: int) -> Command:
    def command(task: Task) -> Sequence[str]:
        words = [task.repository.name, str(task.destination), f"--max-workers={min(task.connections, most)}"]
        return [task.programs.peers, str(CLIENTS / "snapshot.py"), *words]

    return command


def kserve(task: Task) -> Sequence[str]:
    return downloading.kserve(task.programs.peers, f"hf://{task.repository.name}", task.destination)


ARIA2 = (
    "--no-conf", "--file-allocation=none", "--min-split-size=1M", "--auto-file-renaming=false", "--continue=true",
    "--auto-save-interval=1", "--console-log-level=warn", "--summary-interval=0", "--download-result=hide",
    "--show-console-readout=false",
)  # fmt: skip
"""By default, aria2 saves its progress every 60 seconds, which is longer than any scenario."""


def aria2(split: int | None = None) -> Command:
    """aria2 with each file in `split` parts (at most 16); None: connections divided by files."""

    def command(task: Task) -> Sequence[str]:
        parts = min(16, task.connections, split or max(1, task.connections // len(task.repository.files)))
        numbers = [f"-x{parts}", f"-s{parts}", f"-j{max(1, task.connections // parts)}"]
        authority = [f"--ca-certificate={task.server.authority}"] if task.server.authority else []
        return ["aria2c", f"-i{task.lists / 'aria2'}", f"-d{task.destination}", *numbers, *ARIA2, *authority]

    return command


def curl(most: int) -> Command:
    def command(task: Task) -> Sequence[str]:
        parallel = ["--parallel", "--parallel-immediate", "--parallel-max", str(min(task.connections, most))]
        places = ["--config", str(task.lists / "curl"), "--output-dir", str(task.destination)]
        return ["curl", "--no-progress-meter", "--fail", *parallel, *places]

    return command


def curl_ranges(task: Task) -> Sequence[str]:
    words = [task.addresses(asked=False), str(task.destination), f"--connections={task.connections}"]
    return [sys.executable, str(CLIENTS / "curl_ranges.py"), *words]


def bare_loop(*, asked: bool = False) -> Command:
    def command(task: Task) -> Sequence[str]:
        return downloading.bare_loop(
            task.addresses(asked=asked),
            task.destination,
            connections=task.connections,
            total=task.repository.shape.total,
        )

    return command


def importing(task: Task) -> Sequence[str]:
    """Import the HTTP library, which every client in Python must do, in the Python of the fetcher."""
    return [str(Path(task.programs.fetcher).with_name("python")), "-c", "import aiohttp"]


def in_parallel(tool: str) -> Command:
    """Run `tool` over the served files, which are as warm as a copy. Many small files share a process by `xargs`."""

    def command(task: Task) -> Sequence[str]:
        together = max(1, len(task.repository.files) // 32)
        script = f'ls "$0"/* | xargs -P "$(nproc)" -n {together} {tool}'
        return ["sh", "-c", script, str(task.repository.directory)]

    return command


def hashlib(task: Task) -> Sequence[str]:
    return [sys.executable, str(CLIENTS / "hash_files.py"), *task.repository.paths()]
