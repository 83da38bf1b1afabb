"""aiohttp is imported without loading authorities that nobody asked for, and works as ever for others in the process."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading

from fetcher.transport.http_library import late_authorities


def output_of(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


class TestLate:
    def test_a_context_of_the_block_loads_the_authorities_before_its_first_connection(self) -> None:
        with late_authorities():
            context = ssl.create_default_context()
        before = len(context.get_ca_certs())
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
        assert before == 0
        assert len(context.get_ca_certs()) == len(ssl.create_default_context().get_ca_certs())
        assert type(context) is ssl.SSLContext

    def test_it_verifies_as_an_ordinary_context_does(self) -> None:
        with late_authorities():
            context = ssl.create_default_context()
        ordinary = ssl.create_default_context()
        assert (context.verify_mode, context.check_hostname) == (ordinary.verify_mode, ordinary.check_hostname)
        assert isinstance(context, ssl.SSLContext)

    def test_contexts_before_after_and_on_other_threads_are_ordinary(self) -> None:
        made: list[ssl.SSLContext] = [ssl.create_default_context()]
        with late_authorities():
            thread = threading.Thread(target=lambda: made.append(ssl.create_default_context()))
            thread.start()
            thread.join()
        made.append(ssl.create_default_context())
        assert [type(each) for each in made] == [ssl.SSLContext] * 3
        assert len({len(each.get_ca_certs()) for each in made}) == 1

    def test_the_standard_library_is_as_before(self) -> None:
        before = dict(vars(ssl.SSLContext))
        with late_authorities():
            assert dict(vars(ssl.SSLContext)) != before
        assert dict(vars(ssl.SSLContext)) == before


class TestImport:
    def test_importing_the_transport_loads_no_authorities(self) -> None:
        script = "import fetcher.transport.client, aiohttp.connector as c; print(len(c._SSL_CONTEXT_VERIFIED.get_ca_certs()))"
        assert output_of(script) == "0"

    def test_who_imported_aiohttp_before_keeps_its_contexts(self) -> None:
        script = (
            "import aiohttp.connector; context = aiohttp.connector._SSL_CONTEXT_VERIFIED;"
            "before = type(context), len(context.get_ca_certs());"
            "import fetcher.transport.client; print(before == (type(context), len(context.get_ca_certs())))"
        )
        assert output_of(script) == "True"
