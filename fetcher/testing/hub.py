"""The Hub: its repositories, their access rules, and its responses. It decides only and does no I/O.

::

    GET /api/{models,datasets}/{repo}[/revision/{rev}]       the commit
    GET /api/{models,datasets}/{repo}/refs                   branches, tags
    GET /api/{models,datasets}/{repo}/tree/{rev}[/{path}]    the listing, page by page
    GET|HEAD [/datasets]/{repo}/resolve/{rev}/{path}         a plain file, or a redirect to the CDN
    GET|HEAD /api/resolve-cache{...}                         plain files again, with `resolve_cache`

All paths are below `prefix`, as on a mirror within a repository manager.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import quote, unquote, urlencode, urlsplit

from fetcher.testing.content import Content, body_of
from fetcher.testing.exchange import Request, Response, serve_content
from fetcher.testing.repository import Commit, Repository
from fetcher.testing.signing import Signer

UPSTREAM = "https://huggingface.co"
Addresses = Literal["absolute", "relative", "upstream", "without prefix"]
"""How a mirror writes its own addresses: with its host; as a path; as its upstream does; as a path without its prefix."""
_ACTIONS = ("revision", "refs", "tree", "resolve")


@dataclass(slots=True)
class Hub:
    """The repositories and settings of a Hub. The endpoints are known only after the servers listen.

    `blobs` is the content that the CDN serves, by SHA-256. `addresses` None: absolute addresses for pages and relative ones for
    the resolve cache, as the Hub does.
    """

    signer: Signer
    tokens: set[str]
    page_size: int
    redirect_status: int
    resolve_cache: bool
    endpoint: Callable[[], str]
    cdn_endpoint: Callable[[], str]
    prefix: str = ""
    addresses: Addresses | None = None
    blobs: dict[str, Content] = field(default_factory=dict)
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)

    def answer(self, request: Request) -> Response:
        if not request.target.startswith(f"{self.prefix}/"):
            return _error(404, None, "There is no repository manager's page here.")
        return self._answer(replace(request, target=request.target.removeprefix(self.prefix)))

    def _answer(self, request: Request) -> Response:
        segments = [unquote(segment) for segment in urlsplit(request.target).path.split("/")[1:]]
        cached = segments[:2] == ["api", "resolve-cache"]
        api = segments[0] == "api" and not cached
        segments = segments[2:] if cached else segments[1:] if api else segments
        kind = segments[0] if segments[0] in ("models", "datasets") else "models"
        segments = segments[1:] if segments[0] == kind else segments
        if request.token is not None and request.token not in self.tokens:
            return _error(401, None, "Invalid credentials in Authorization header")
        at = next((index for index in (1, 2) if segments[index : index + 1] and segments[index] in _ACTIONS), 2)
        repository = self.repositories.get((kind.removesuffix("s"), "/".join(segments[:at])))
        if repository is None or (repository.private and request.token not in repository.readers):
            return _no_repository(request)
        action, rest = (segments[at], segments[at + 1 :]) if len(segments) > at else ("revision", ["main"])
        return self._act(request, repository, action, rest, api=api, cached=cached)

    def _act(
        self, request: Request, repository: Repository, action: str, rest: list[str], *, api: bool, cached: bool
    ) -> Response:
        if api and action == "refs":
            return _json(_refs(repository))
        revision, path = repository.split(rest or ["main"])
        commit = repository.find(revision)
        if commit is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if api and action == "revision":
            return _json(_info(repository, commit))
        if api and action == "tree":
            return self._tree(request, commit, path)
        if not api and action == "resolve":
            return self._resolve(request, repository, commit, path, cached=cached)
        return _error(404, None, "Sorry, we can't find the page you are looking for.")

    def _tree(self, request: Request, commit: Commit, under: str) -> Response:
        recursive = request.query.get("recursive", "false").lower() in ("true", "1")
        entries = list(commit.entries(under=under, recursive=recursive))
        if under and not entries:
            return _error(404, "EntryNotFound", f"{under} does not exist on {commit.id}")
        start = int(request.query.get("cursor", "0"))
        stop = start + int(request.query.get("limit", self.page_size))
        response = _json(entries[start:stop])
        if stop >= len(entries):
            return response
        query = urlencode({**request.query, "cursor": stop})
        return response.with_header(
            "Link", f'<{self._own(f"{_raw_path(request)}?{query}", self.addresses or "absolute")}>; rel="next"'
        )

    def _resolve(self, request: Request, repository: Repository, commit: Commit, path: str, *, cached: bool) -> Response:
        if repository.gated and request.token not in repository.readers:
            return _gated(request, repository)
        content = commit.files.get(path)
        if content is None:
            return _error(404, "EntryNotFound", "Entry not found").with_header("X-Repo-Commit", commit.id)
        lfs = path in commit.lfs
        etag = f'"{content.sha256 if lfs else content.git_sha1}"'
        facts = (("X-Repo-Commit", commit.id), ("X-Linked-Size", str(content.size)), ("X-Linked-Etag", etag))
        if lfs:
            self.blobs[content.sha256] = content
            address = self.cdn_endpoint() + self.signer.sign(f"/blob/{content.sha256}", filename=path)
            return _redirect(self.redirect_status, address, facts)
        if self.resolve_cache and not cached:
            kind = "/models" if repository.kind == "model" else ""
            place = f"/api/resolve-cache{kind}{repository.prefix}/resolve/{commit.id}/{quote(path)}"
            own = self._own(f"{place}?etag={quote(etag, safe='')}", self.addresses or "relative")
            return _redirect(307, own, (*facts, ("ETag", etag)))
        return serve_content(request, content, {"ETag": etag, "X-Repo-Commit": commit.id})

    def _own(self, place: str, addresses: Addresses) -> str:
        """Return the address of `place`, a path and query below the prefix."""
        match addresses:
            case "absolute":
                return self.endpoint() + place
            case "relative":
                return self.prefix + place
            case "upstream":
                return UPSTREAM + place
        return place


def _raw_path(request: Request) -> str:
    return urlsplit(request.target).path


def _json(value: object, status: int = 200) -> Response:
    return Response(status, (("Content-Type", "application/json; charset=utf-8"),), body_of(json.dumps(value).encode()))


def _redirect(status: int, location: str, headers: Iterable[tuple[str, str]]) -> Response:
    return Response(status, (("Location", location), *headers), body_of(b"Redirecting"))


def _error(status: int, code: str | None, message: str) -> Response:
    response = _json({"error": message}, status).with_header("X-Error-Message", message)
    return response.with_header("X-Error-Code", code) if code else response


def _no_repository(request: Request) -> Response:
    """Return the response for a private or missing repository: the Hub does not tell them apart."""
    if request.token is None:
        return _error(401, "RepoNotFound", "Invalid username or password.")
    return _error(404, "RepoNotFound", "Repository not found")


def _gated(request: Request, repository: Repository) -> Response:
    status = 401 if request.token is None else 403
    message = f"Access to {repository.kind} {repository.name} is restricted and you are not in the authorized list."
    return _error(status, "GatedRepo", message)


def _info(repository: Repository, commit: Commit) -> dict[str, object]:
    return {
        "_id": "0" * 24,
        "id": repository.name,
        "modelId": repository.name,
        "sha": commit.id,
        "private": repository.private,
        "gated": "manual" if repository.gated else False,
        "siblings": [{"rfilename": path} for path in sorted(commit.files)],
    }


def _refs(repository: Repository) -> dict[str, object]:
    def ref(name: str, commit: str) -> dict[str, str]:
        full = name if name.startswith("refs/") else f"refs/heads/{name}"
        return {"name": name, "ref": full, "targetCommit": commit}

    branches = [ref(name, commit) for name, commit in repository.refs.items() if not name.startswith("refs/")]
    return {"branches": branches, "converts": [], "tags": []}
