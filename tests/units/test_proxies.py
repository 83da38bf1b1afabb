"""The proxy for an address, from the variables that clusters set."""

from __future__ import annotations

import pytest

from fetcher.errors import ConfigurationError
from fetcher.transport.proxies import Proxy, proxy_for

PROXY = "http://proxy.example:3128"


class TestWhichVariable:
    @pytest.mark.parametrize(
        ("url", "environ", "found"),
        [
            ("https://a.example/f", {}, None),
            ("https://a.example/f", {"https_proxy": PROXY}, PROXY),
            ("https://a.example/f", {"HTTPS_PROXY": PROXY}, PROXY),
            ("https://a.example/f", {"HTTP_PROXY": PROXY}, None),
            ("http://a.example/f", {"HTTP_PROXY": PROXY}, PROXY),
            ("http://a.example/f", {"HTTPS_PROXY": PROXY}, None),
            ("https://a.example/f", {"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}, PROXY),
            ("https://a.example/f", {"https_proxy": "", "HTTPS_PROXY": "http://other:1"}, None),
            ("https://a.example/f", {"HTTPS_PROXY": "  "}, None),
            ("http://a.example/f", {"ALL_PROXY": PROXY}, PROXY),
            ("https://a.example/f", {"all_proxy": PROXY}, PROXY),
            ("https://a.example/f", {"all_proxy": "socks5://other:1", "https_proxy": PROXY}, PROXY),
            ("https://a.example/f", {"HTTPS_PROXY": " proxy.example:3128 "}, PROXY),
            ("https://a.example/f", {"HTTPS_PROXY": "HTTP://proxy.example:3128/"}, PROXY),
            ("https://a.example/f", {"HTTPS_PROXY": "[fd00::1]:3128"}, "http://[fd00::1]:3128"),
        ],
    )
    def test_the_lower_case_variable_of_the_scheme_wins(self, url: str, environ: dict[str, str], found: str | None) -> None:
        proxy = proxy_for(url, environ)
        assert (proxy.url if proxy else None) == found

    @pytest.mark.parametrize("scheme", ["socks", "socks4", "socks4a", "socks5", "socks5h", "SOCKS5", "https", "quic"])
    @pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
    def test_an_unsupported_kind_of_proxy_is_refused_by_name(self, scheme: str, variable: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            proxy_for("https://a.example/f", {variable: f"{scheme}://user:s3cret@proxy.example:1080"})
        assert caught.value.message.startswith(f"{variable} names a proxy that speaks {scheme.lower()}://")
        assert "s3cret" not in caught.value.message

    def test_a_host_in_no_proxy_ignores_an_unusable_proxy(self) -> None:
        assert proxy_for("https://a.example/f", {"ALL_PROXY": "socks5://p:1", "NO_PROXY": "a.example"}) is None

    @pytest.mark.parametrize("text", ["http://", "http://user:s3cret@", "http://h:port", "http://[::1", "//s3cret", "h:0"])
    def test_an_invalid_proxy_is_reported_by_its_variable_without_its_value(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=r"^HTTPS_PROXY is not a proxy address") as caught:
            proxy_for("https://a.example/f", {"HTTPS_PROXY": text})
        assert "s3cret" not in caught.value.message


class TestCredentials:
    def test_credentials_are_removed_from_the_address_and_decoded(self) -> None:
        proxy = proxy_for("https://a.example/f", {"HTTPS_PROXY": "user:p%40ss%2F@proxy.example:3128"})
        assert proxy == Proxy(PROXY, "Basic dXNlcjpwQHNzLw==")

    def test_credentials_are_not_shown(self) -> None:
        assert "dXNl" not in repr(Proxy(PROXY, "Basic dXNlcg=="))


class TestNoProxy:
    @pytest.mark.parametrize(
        ("exceptions", "url", "direct"),
        [
            ("*", "https://a.example/f", True),
            (" * ", "https://a.example/f", True),
            ("a.example", "https://a.example/f", True),
            ("A.Example", "https://a.example/f", True),
            ("a.example", "https://a.example./f", True),
            ("example", "https://a.example/f", True),
            (".example", "https://a.example/f", True),
            (".example", "https://example/f", True),
            ("*.example", "https://a.example/f", True),
            ("a.example.", "https://a.example/f", True),
            ("ample", "https://a.example/f", False),
            ("b.a.example", "https://a.example/f", False),
            ("localhost,127.0.0.1, a.example", "https://a.example/f", True),
            ("localhost 127.0.0.1\ta.example", "https://a.example/f", True),
            ("localhost,,\n.svc ,.cluster.local", "http://hub.models.svc/f", True),
            ("a.example:443", "https://a.example/f", True),
            ("a.example:8443", "https://a.example/f", False),
            ("a.example:8443", "https://a.example:8443/f", True),
            (".example:80", "http://a.example/f", True),
            ("10.0.0.0/8", "http://10.11.12.13/f", True),
            ("10.0.0.0/8", "http://11.0.0.1/f", False),
            ("10.9.8.7/8", "http://10.11.12.13:8080/f", True),
            ("10.0.0.0/8", "http://10.example/f", False),
            ("10.0.0.1", "http://10.0.0.1/f", True),
            ("10.0.0.1:8080", "http://10.0.0.1:8080/f", True),
            ("10.0.0.1:8080", "http://10.0.0.1/f", False),
            ("10.0.0.1", "http://110.0.0.1/f", False),
            ("0.0.1", "http://10.0.0.1/f", False),
            ("fd00::/8", "http://[fd12::1]/f", True),
            ("[fd00::]/8", "http://[fd12::1]/f", True),
            ("fd00::/8", "http://[fe80::1]/f", False),
            ("fd12:0::1", "http://[fd12::1]/f", True),
            ("[fd12::1]", "http://[fd12::1]:8080/f", True),
            ("[fd12::1]:8080", "http://[fd12::1]:8080/f", True),
            ("[fd12::1]:8081", "http://[fd12::1]:8080/f", False),
            ("10.0.0.0/8", "http://[::ffff:10.0.0.1]/f", True),
            ("10.0.0.0/33,nonsense/x,:,[,/,.", "http://10.0.0.1/f", False),
            ("10.0.0.0/33,nonsense/x,:,[,/,.", "http://a.example/f", False),
            ("", "http://a.example/f", False),
        ],
    )
    def test_no_proxy_is_matched(self, exceptions: str, url: str, direct: bool) -> None:
        environ = {"http_proxy": PROXY, "HTTPS_PROXY": PROXY, "NO_PROXY": exceptions}
        assert (proxy_for(url, environ) is None) == direct

    def test_lower_case_no_proxy_wins(self) -> None:
        environ = {"HTTPS_PROXY": PROXY, "no_proxy": "b.example", "NO_PROXY": "a.example"}
        assert proxy_for("https://a.example/f", environ) is not None
        assert proxy_for("https://b.example/f", environ) is None
