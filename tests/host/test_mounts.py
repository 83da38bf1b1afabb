"""The mounts of a machine, and the mount of a path."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.host.mounts import Mount, decoded, mount_number, mount_under, parse_mounts
from tests.host.machines import NODE_MOUNTS, mounted


class TestMountinfo:
    def test_every_field_is_parsed(self) -> None:
        options = ("rw", "user_id=0", "allow_other")
        expected = Mount(92, "0:53", "/", "/data/with space", "fuse.juicefs", "JuiceFS:my volume", options)
        assert mounted(92) == expected
        assert mounted(92).option("user_id") == "0"
        assert mounted(92).option("allow_other") == ""
        assert mounted(92).option("other") is None

    def test_malformed_lines_are_skipped(self) -> None:
        assert [mount.number for mount in NODE_MOUNTS] == [22, 28, 90, 91, 92, 93, 94, 95, 96]

    @given(st.text())
    def test_the_kernels_escapes_are_decoded(self, text: str) -> None:
        escaped = "".join(f"\\{ord(sign):03o}" if sign in " \t\n\\" else sign for sign in text)
        assert decoded(escaped) == text

    @given(st.text())
    def test_any_text_is_parsed_without_an_error(self, text: str) -> None:
        assert parse_mounts(text) == ()

    @pytest.mark.parametrize(
        ("path", "device", "number"),
        [
            ("/etc/hosts", "259:1", 28),
            ("/data", "259:3", 90),
            ("/data/model", "259:3", 90),
            ("/database", "259:1", 28),
            ("/data/with space/model", "0:53", 92),
            ("/data/bound/model", "259:3", 93),
            ("/models/one", "0:54", 94),
            ("/home/me", "0:99", 95),  # on btrfs, stat and mountinfo report different devices
        ],
    )
    def test_without_a_mount_id_the_longest_and_last_mount_point_wins(self, path: str, device: str, number: int) -> None:
        found = mount_under(Path(path), NODE_MOUNTS, number=None, device=device)
        assert found == mounted(number)

    def test_a_file_opened_before_an_overmount_is_found_by_its_device(self) -> None:
        assert mount_under(Path("/models/one"), NODE_MOUNTS, number=None, device="0:52") == mounted(91)

    def test_the_kernels_mount_id_decides(self) -> None:
        assert mount_under(Path("/models/one"), NODE_MOUNTS, number=91, device="0:54") == mounted(91)

    def test_without_mounts_there_is_no_result(self) -> None:
        assert mount_under(Path("/models"), (), number=5, device="0:1") is None

    def test_the_mount_id_is_read_from_fdinfo(self) -> None:
        assert mount_number("pos:\t0\nflags:\t012000000\nmnt_id:\t27\nino:\t2\n") == 27
        assert mount_number("pos:\t0\nflags:\t012000000\n") is None
