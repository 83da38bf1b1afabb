"""docs/environment.md: every variable that a command reads."""

from __future__ import annotations

from collections.abc import Iterable

from docs.generator.tables import NOTICE, table
from fetcher.cli.parser import COMMANDS as FETCHER
from fetcher.command.parser import Commands
from loader.cli.parser import COMMANDS as LOADER

_INTRODUCTION = """\
# Environment variables

Each option of a command has a variable. A flag wins over its variable. An empty variable counts as absent. A switch
takes `1`, `true`, `yes` or `on`, and `0`, `false`, `no` or `off`. A variable for an option that may be repeated holds
several values, separated by commas or line breaks. A value that cannot be read ends the command with 78
`Configuration`."""

_HUB = (
    ("`HF_TOKEN`", "The Hub's token. It goes to the Hub's own origin only. The older `HUGGING_FACE_HUB_TOKEN` works too."),
    ("`HF_TOKEN_PATH`", "A file that holds the token. Default: `token` in `HF_HOME`."),
    ("`HF_OIDC_RESOURCE`", "huggingface_hub exchanges the workload's identity for a token."),
    ("`HF_ENDPOINT`", "A mirror of the Hub. It may hold a user, a password and a path."),
    ("`HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`", "`1` forbids the network. The Hub's own cache is the source then."),
    (
        "`HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`",
        "The Hub's cache: the source when offline, and the root of `--layout hf-cache`.",
    ),
    ("`HF_HOME`", "The parent of the Hub's cache and of the token file. Default: `huggingface` in `XDG_CACHE_HOME`."),
    ("`XDG_CACHE_HOME`", "The parent of the default caches. Default: `~/.cache`, by `HOME`."),
)
_S3 = (
    ("`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`", "Keys. Nothing else is asked for them then."),
    ("`AWS_PROFILE`, `AWS_SHARED_CREDENTIALS_FILE`, `AWS_CONFIG_FILE`", "A profile, and the files that hold it."),
    ("`AWS_ROLE_ARN`, `AWS_WEB_IDENTITY_TOKEN_FILE`", "The identity of a pod (IRSA), exchanged at STS."),
    ("`AWS_CONTAINER_CREDENTIALS_FULL_URI` and its siblings", "The agent that gives keys: EKS Pod Identity, ECS."),
    ("`AWS_REGION`, `AWS_DEFAULT_REGION`", "The region, else that of the profile, else `us-east-1`."),
    ("`AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`", "A store other than Amazon's."),
    ("`AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`", "`true` ignores both, and those of the profile."),
    ("`AWS_REQUEST_PAYER`", "`requester` pays for the requests, in a bucket whose requester pays."),
)
_GCS = (
    ("`GOOGLE_OAUTH_ACCESS_TOKEN`, `CLOUDSDK_AUTH_ACCESS_TOKEN`", "An access token. It cannot be renewed."),
    ("`GOOGLE_APPLICATION_CREDENTIALS`", "A file of credentials: a service account, or a workload's identity."),
    ("`CLOUDSDK_CONFIG`", "gcloud's directory, whose `application_default_credentials.json` comes next."),
    (
        "`GCE_METADATA_HOST`",
        "The metadata service. If it is set, no answer is a failure that is retried, not an anonymous request.",
    ),
    ("`NO_GCE_CHECK`", "`1` does not ask the metadata service, which comes last."),
    ("`GOOGLE_CLOUD_QUOTA_PROJECT`", "The project that pays for a bucket whose requester pays."),
    ("`STORAGE_EMULATOR_HOST`", "An emulator of the service. It gets no credentials."),
)
_AZURE = (
    (
        "`AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT`",
        "The account of `az://`, and the one that a key or a SAS is for.",
    ),
    ("`AZURE_STORAGE_SAS_TOKEN`", "A shared access signature. One in the address wins."),
    ("`AZURE_STORAGE_CONNECTION_STRING`", "Account, endpoint, and a key or a SAS."),
    ("`AZURE_STORAGE_ACCESS_KEY`, `AZURE_STORAGE_KEY`", "The key of the account."),
    ("`AZURE_TENANT_ID`, `AZURE_CLIENT_ID`", "An identity of Entra ID. KServe's `AZ_TENANT_ID` and so on mean the same."),
    ("`AZURE_CLIENT_SECRET`, `AZURE_CLIENT_CERTIFICATE_PATH`", "What a service principal is known by."),
    ("`AZURE_FEDERATED_TOKEN_FILE`", "What a pod with a workload's identity is known by."),
)
_NETWORK = (
    ("`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`", "Proxies that speak `http://`. The name in lower case wins."),
    ("`NO_PROXY`", "Names, addresses, networks and `*` that are reached directly."),
    (
        "`SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `AWS_CA_BUNDLE`",
        "Certificate authorities, added to those of the system: a file or a directory.",
    ),
    (
        "`<hostname>-headers`",
        "A JSON object of request headers for that host. They go to the origin of the address as written.",
    ),
)
_REGISTRIES = (
    (
        "`KSERVE_OCI_DOCKER_CONFIG`, `DOCKER_CONFIG`, `REGISTRY_AUTH_FILE`",
        "Either; the directory of docker's `config.json`; podman's `auth.json`. The first that knows the registry is used.",
    ),
    ("`XDG_RUNTIME_DIR`", "podman's `containers/auth.json` is looked for here, then docker's `.docker/config.json` in `HOME`."),
    ("`FETCHER_PLAIN_HTTP_REGISTRIES`", "Registries without TLS, as `host:port` with commas between. Loopback needs no entry."),
)
_KSERVE = (
    ("`STORAGE_ALLOW_PATTERNS`, `STORAGE_IGNORE_PATTERNS`", "Patterns of files, as a JSON list or separated by commas."),
    (
        "`CA_BUNDLE_CONFIGMAP_NAME`, `CA_BUNDLE_VOLUME_MOUNT_POINT`",
        "If the first is set, `cabundle.crt` in the second is trusted. `REQUESTS_CA_BUNDLE` wins over both.",
    ),
    (
        "`STORAGE_CONFIG`, `STORAGE_OVERRIDE_CONFIG`",
        "KServe's storage Secret for S3, GCS or Azure, JSON objects; the second wins for each key, and both over variables.",
    ),
    (
        "`GOOGLE_APPLICATION_CREDENTIALS`, `STORAGE_EMULATOR_HOST`",
        "The file of a service account that KServe mounts; an emulator, which gets no credentials.",
    ),
    (
        "`AZ_TENANT_ID`, `AZ_CLIENT_ID`, `AZ_CLIENT_SECRET`",
        "KServe's former names of `AZURE_TENANT_ID` and so on; they win over these. A client wins over the key.",
    ),
    (
        "`AZURE_STORAGE_ACCESS_KEY`",
        "The key of the account in the address. Without it and a client, access is anonymous.",
    ),
    (
        "`KSERVE_OCI_DOCKER_CONFIG`, `KSERVE_OCI_INSECURE_REGISTRY`",
        "docker's configuration that KServe mounts (`/mnt/oci-fetch-auth/config.json`); `true` for registries without TLS.",
    ),
    (
        "`awsAnonymousCredential`, `S3_USER_VIRTUAL_BUCKET`, `S3_USE_ACCELERATE`, `S3_VERIFY_SSL`",
        "For S3: no credentials, the bucket as a part of the host, Amazon's accelerated address; the last is ignored.",
    ),
)
_LLMKUBE = (
    ("`MODEL_SOURCE`", "The source, as in [its table](dropins.md#model-downloader-for-llmkube). Required."),
    ("`CACHE_DIR`", "The directory of the source's key."),
    ("`MODEL_PATH`", "The one file that is wanted, under its name in this container."),
    ("`MODEL_FILES`", "Paths within the repository, one a line."),
    ("`MODEL_SHA256`", "The digest of `MODEL_PATH`, or of the only file."),
    ("`MODEL_REFRESH_POLICY`", "`IfNotPresent` or `OnChange`."),
    ("`S3_BUCKET`, `S3_KEY` or `S3_PREFIX`", "The object, or the prefix of `MODEL_FILES`, instead of an `s3://` address."),
    ("`S3_ENDPOINT`", "The address of the store, if `AWS_ENDPOINT_URL` is not set. Keys are those of AWS."),
)


def environment() -> str:
    """The page, in Markdown."""
    lines = [_INTRODUCTION, "", NOTICE]
    for program, commands in (("fetcher", FETCHER), ("loader", LOADER)):
        lines += ["", f"## Options of `{program}`", "", *table(("variable", "commands", "meaning"), _options(commands))]
    for title, rows in (
        ("The Hub and its caches", _HUB),
        ("S3", _S3),
        ("Google Cloud Storage", _GCS),
        ("Azure Blob Storage", _AZURE),
        ("Proxies, certificates, headers", _NETWORK),
        ("Registries (`oci://`)", _REGISTRIES),
        ("`storage-initializer`", _KSERVE),
        ("`model-downloader`", _LLMKUBE),
    ):
        lines += ["", f"## {title}", "", *table(("variable", "meaning"), rows)]
    return "\n".join(lines) + "\n"


def _options(commands: Commands) -> Iterable[tuple[str, str, str]]:
    """Each option once, with the commands that take it."""
    takers: dict[str, list[str]] = {}
    meanings: dict[str, str] = {}
    for name, (_, options) in commands.items():
        for option in options:
            takers.setdefault(option.variable, []).append(f"`{name}`")
            meanings[option.variable] = option.help
    return ((f"`{variable}`", ", ".join(names), meanings[variable]) for variable, names in takers.items())
