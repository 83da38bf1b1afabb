"""Whose access a program takes: a pod's, or that of a kubeconfig."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from cluster.client import Api, ApiAccess, Forbidden, Unavailable, in_cluster, of_kubeconfig
from cluster.client.endpoints import NAMESPACES
from fetcher.errors import ConfigurationError
from tests.cluster.api import Cluster
from tests.cluster.faults import Front

SECRET = "s3cr3t-t0ken"


def kubeconfig(
    path: Path, *, user: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None, **context: Any
) -> Path:
    """Write a kubeconfig. JSON is YAML."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", **context}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(document))
    return path


def read(path: Path) -> dict[str, Any]:
    import yaml

    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


async def asked(access: ApiAccess) -> None:
    async with Api(access, manager="test") as api:
        assert (await api.get(NAMESPACES, "default"))["metadata"]["name"] == "default"


class TestKubeconfig:
    async def test_has_certificates_as_data(self, plane: Cluster) -> None:
        await asked(of_kubeconfig(Path(plane.kubeconfig)))

    async def test_has_certificates_in_files_beside_it(self, plane: Cluster, tmp_path: Path) -> None:
        document = read(Path(plane.kubeconfig))
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        for part, name in ((cluster, "certificate-authority"), (user, "client-certificate"), (user, "client-key")):
            (tmp_path / f"{name}.pem").write_bytes(base64.b64decode(part.pop(f"{name}-data")))
            part[name] = f"{name}.pem"
        (tmp_path / "config").write_text(json.dumps(document))

        await asked(of_kubeconfig(tmp_path / "config"))

    async def test_of_another_authority_is_not_trusted(self, plane: Cluster, tmp_path: Path) -> None:
        document = read(Path(plane.kubeconfig))
        stranger = base64.b64encode(trustme.CA().cert_pem.bytes()).decode()
        document["clusters"][0]["cluster"]["certificate-authority-data"] = stranger
        (tmp_path / "config").write_text(json.dumps(document))

        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await asked(of_kubeconfig(tmp_path / "config"))

    async def test_gives_the_name_in_the_certificate_of_the_server(self, plane: Cluster, tmp_path: Path) -> None:
        document = read(Path(plane.kubeconfig))
        document["clusters"][0]["cluster"]["tls-server-name"] = "elsewhere.example"
        (tmp_path / "config").write_text(json.dumps(document))

        with pytest.raises(Unavailable, match=r"elsewhere\.example"):
            await asked(of_kubeconfig(tmp_path / "config"))

    def test_has_a_token(self, tmp_path: Path) -> None:
        access = of_kubeconfig(kubeconfig(tmp_path / "config", user={"token": SECRET}, namespace="team"))

        assert access.headers() == {"Authorization": f"Bearer {SECRET}"}
        assert access.namespace == "team"
        assert SECRET not in repr(access)

    def test_has_a_file_with_a_token_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text(f"{SECRET}\n")

        access = of_kubeconfig(kubeconfig(tmp_path / "config", user={"tokenFile": "token"}))

        assert access.headers() == {"Authorization": f"Bearer {SECRET}"}

    def test_is_completed_by_another_one(self, tmp_path: Path) -> None:
        first = tmp_path / "first"
        first.write_text(json.dumps({"current-context": "x", "users": [{"name": "u", "user": {"token": "of-the-first"}}]}))
        second = kubeconfig(tmp_path / "second", user={"token": "of-the-second"})

        assert of_kubeconfig(first, second).token == "of-the-first"

    @pytest.mark.parametrize(
        ("user", "cluster", "complaint"),
        [
            ({"exec": {"command": "aws"}}, {}, "exec gets its credentials from a plugin, which is not started here"),
            ({"auth-provider": {"name": "gcp"}}, {}, "plugin"),
            ({"as": "somebody"}, {}, "acts as another user"),
            ({}, {"insecure-skip-tls-verify": True}, "trusts any server"),
            ({}, {"proxy-url": "http://proxy:3128"}, "uses a proxy"),
            ({}, {"server": "127.0.0.1:6443"}, "no https:// address"),
            ({}, {"server": f"https://admin:{SECRET}@h"}, "no https:// address"),
            ({"token": f"{SECRET}\nX: y"}, {}, "characters that no token has"),
            ({"client-certificate-data": "?", "client-key-data": "?"}, {}, "cannot use the certificates: they are damaged"),
            ({"client-certificate": "gone.pem", "client-key": "gone.pem"}, {}, "gone.pem: No such file"),
            ({}, {"certificate-authority-data": base64.b64encode(b"no PEM").decode()}, "cannot use the certificates"),
        ],
    )
    def test_is_refused(self, tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], complaint: str) -> None:
        with pytest.raises(ConfigurationError, match=complaint) as caught:
            of_kubeconfig(kubeconfig(tmp_path / "config", user=user, cluster=cluster))

        assert SECRET not in str(caught.value)
        assert str(tmp_path) in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            (f"users:\n- name: u\n  token: {SECRET}: {SECRET}", "is no YAML at line 3"),
            ("- 1", "is no kubeconfig"),
            ("", "is no kubeconfig"),
            ("{}", "has no current context"),
            ("current-context: x", "has no context 'x'"),
            ("{current-context: x, contexts: [1, {name: x}]}", "has no context 'x'"),
            ("{current-context: x, contexts: [{name: x, context: {cluster: c, user: u}}]}", "has no cluster 'c'"),
            ("\x00", "is no YAML"),
        ],
    )
    def test_that_is_none_says_so(self, tmp_path: Path, text: str, complaint: str) -> None:
        (tmp_path / "config").write_text(text)

        with pytest.raises(ConfigurationError, match=complaint) as caught:
            of_kubeconfig(tmp_path / "config")

        assert SECRET not in str(caught.value)

    def test_that_is_missing_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"cannot read the kubeconfig .*: No such file"):
            of_kubeconfig(tmp_path / "config")

    def test_with_an_encrypted_key_asks_no_terminal(self, plane: Cluster, tmp_path: Path) -> None:
        from cryptography.hazmat.primitives import serialization

        document = read(Path(plane.kubeconfig))
        user = document["users"][0]["user"]
        key = serialization.load_pem_private_key(base64.b64decode(user["client-key-data"]), None)
        locked = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"word")
        )
        user["client-key-data"] = base64.b64encode(locked).decode()
        (tmp_path / "config").write_text(json.dumps(document))

        with pytest.raises(ConfigurationError, match="cannot use the certificates"):
            of_kubeconfig(tmp_path / "config")


class TestPod:
    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        """What the kubelet mounts."""
        trustme.CA().cert_pem.write_to_path(tmp_path / "ca.crt")
        (tmp_path / "namespace").write_text("weightlift-system\n")
        (tmp_path / "token").write_text(SECRET)
        return tmp_path

    @pytest.mark.parametrize(("host", "server"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")])
    def test_finds_its_api_server(self, directory: Path, host: str, server: str) -> None:
        access = in_cluster({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}, directory)

        assert (access.server, access.namespace) == (server, "weightlift-system")
        assert access.headers() == {"Authorization": f"Bearer {SECRET}"}

    def test_reads_its_token_anew_each_time(self, directory: Path) -> None:
        access = in_cluster({"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "1"}, directory)
        (directory / "token").write_text("renewed")

        assert access.headers() == {"Authorization": "Bearer renewed"}

    def test_is_not_outside_of_a_cluster(self, directory: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"this is no pod.*give --kubeconfig"):
            in_cluster({}, directory)

    @pytest.mark.parametrize("name", ["ca.crt", "namespace", "token"])
    def test_without_its_account_says_what_to_do(self, directory: Path, name: str) -> None:
        (directory / name).unlink()

        with pytest.raises(ConfigurationError, match=r"(?i)token"):
            in_cluster({"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "1"}, directory)

    @pytest.mark.parametrize("content", [b"", b"\xff", b"a b", b"a\nb"])
    def test_sends_nothing_that_is_no_token(self, directory: Path, content: bytes) -> None:
        (directory / "token").write_bytes(content)

        with pytest.raises(ConfigurationError, match="does not contain a token"):
            in_cluster({"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "1"}, directory)


class TestTokens:
    async def test_are_renewed_while_a_program_runs(self, front: Front, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("old")
        front.demand_token("old")
        async with Api(front.access(token_file=tmp_path / "token"), manager="test") as api:
            await api.get(NAMESPACES, "default")
            front.demand_token("new")
            with pytest.raises(Forbidden):
                await api.get(NAMESPACES, "default")

            (tmp_path / "token").write_text("new")

            await api.get(NAMESPACES, "default")

    async def test_that_are_missing_for_a_moment_are_waited_for(self, front: Front, tmp_path: Path) -> None:
        async with Api(front.access(token_file=tmp_path / "token"), manager="test") as api:
            with pytest.raises(Unavailable, match="cannot read the token"):
                await api.get(NAMESPACES, "default")

    async def test_of_a_real_service_account_are_accepted_by_the_server_itself(
        self, plane: Cluster, namespace: str, unique: str, tmp_path: Path
    ) -> None:
        """As in a pod: the token alone, over TLS. Who it is may read nothing, which is an answer."""
        assert plane.run("create", "serviceaccount", unique, "-n", namespace).returncode == 0
        document = read(Path(plane.kubeconfig))
        cluster = document["clusters"][0]["cluster"]
        (tmp_path / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        (tmp_path / "namespace").write_text(namespace)
        (tmp_path / "token").write_text(plane.run("create", "token", unique, "-n", namespace).stdout)
        host, _, port = cluster["server"].removeprefix("https://").rpartition(":")

        access = in_cluster({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}, tmp_path)

        with pytest.raises(Forbidden, match=f"system:serviceaccount:{namespace}:{unique}"):
            await asked(access)
