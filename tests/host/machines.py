"""Recorded machines: the files in /proc and /sys about memory, processors and cgroups, v1 and v2."""

from __future__ import annotations

from pathlib import Path

from fetcher.host.mounts import Mount, parse_mounts

MEMINFO = """\
MemTotal:       24684096 kB
MemFree:        18812136 kB
MemAvailable:   24012372 kB
Buffers:           71160 kB
Active(file):    1003412 kB
HugePages_Total:       0
CommitLimit:    12342048 kB
Committed_AS:     342048 kB
"""

# Linux 6.1 in a virtual machine with cgroup v2 only; 30 MiB of libraries were read and 8 MiB written to tmpfs.
V2_MOUNTS = """\
16 1 0:15 / / ro,relatime - hostfs root ro,/
18 16 0:16 / /proc rw,relatime - proc proc rw
19 16 0:17 / /sys rw,relatime - sysfs sys rw
20 19 0:18 / /sys/fs/cgroup rw,relatime - cgroup2 none rw
21 16 0:19 / /mnt rw,relatime - tmpfs tmpfs rw
"""
V2_POD_STAT = """\
anon 192512
file 8433664
kernel 110592
shmem 8388608
file_dirty 0
inactive_anon 8564736
active_anon 4096
inactive_file 45056
active_file 0
unevictable 0
slab_reclaimable 30072
"""
V2_POD = {"memory.max": "100663296\n", "memory.high": "max\n", "memory.current": "8810496\n", "memory.stat": V2_POD_STAT}
V2_MAIN = {
    "memory.max": "67108864\n",
    "memory.high": "50331648\n",
    "memory.current": "8798208\n",
    "memory.stat": V2_POD_STAT,
}

# Linux 6.18 with the controllers in v1, and a v2 hierarchy without controllers.
HYBRID_MOUNTS = """\
23 27 0:22 / /sys rw,relatime - sysfs sys rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
HYBRID_MEMBERSHIP = """\
9:name=systemd:/
8:pids:/
4:memory:/process_api/8b1b75c37269e9310ae36315a65ffefb
1:cpu:/
0::/
"""
V1_STAT = """\
cache 363794432
rss 1163264
shmem 0
dirty 45056
inactive_anon 1155072
active_anon 8192
inactive_file 232640512
active_file 131153920
hierarchical_memory_limit 9223372036854771712
hierarchical_memsw_limit 9223372036854771712
total_cache 363794432
total_rss 1163264
total_inactive_file 232640512
total_active_file 131153920
"""
V1_UNLIMITED = "9223372036854771712\n"

# A Kubernetes container under v1: it sees only its own directory, under the host's path.
V1_CONTAINER = "/kubepods/burstable/pod0a3c6d0e-5f1c-4a53-9d5c-5d0a5f0e8f9b/2f6c8d1f"
V1_POD_MEMBERSHIP = f"11:memory:{V1_CONTAINER}\n5:cpu,cpuacct:{V1_CONTAINER}\n1:name=systemd:{V1_CONTAINER}\n"
V1_POD_MOUNTS = f"""\
1370 1361 0:98 / / ro,relatime - overlay overlay ro,lowerdir=/var/lib/containerd/a/fs:/var/lib/containerd/b/fs
1379 1374 0:104 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
1384 1379 0:29 {V1_CONTAINER} /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev,noexec master:13 - cgroup cgroup rw,cpu,cpuacct
1387 1379 0:33 {V1_CONTAINER} /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:17 - cgroup cgroup rw,memory
"""

# A Kubernetes container under v2, with its own cgroup namespace, as container runtimes create it.
V2_POD_MOUNTS = """\
1370 1361 0:98 / / ro,relatime - overlay overlay ro,lowerdir=/var/lib/containerd/a/fs
1375 1374 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot
"""


def machine(root: Path, *, membership: str, mounts: str, groups: dict[str, dict[str, str]], overcommit: str = "0") -> Path:
    """Create a directory with the /proc and /sys of a recorded machine."""
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": membership,
        "proc/self/mountinfo": mounts,
        "proc/sys/vm/overcommit_memory": overcommit,
        **{f"{group.lstrip('/')}/{name}": text for group, texts in groups.items() for name, text in texts.items()},
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


# A node with the filesystems that volumes use.
_NODE = r"""
22 28 0:21 / /proc rw,relatime shared:12 - proc proc rw
28 1 259:1 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw,discard
90 28 259:3 / /data rw,noatime shared:50 - xfs /dev/nvme1n1 rw,attr2,inode64,noquota
91 28 0:52 / /models rw,relatime shared:51 - nfs4 10.0.0.5:/exports/models rw,vers=4.2,rsize=1048576,nconnect=8
92 90 0:53 / /data/with\040space rw - fuse.juicefs JuiceFS:my\040volume rw,user_id=0,allow_other
93 90 259:3 /a/b /data/bound ro,noatime - xfs /dev/nvme1n1 rw,attr2,inode64,noquota
94 91 0:54 / /models rw,relatime - tmpfs tmpfs rw,size=1048576k
95 28 0:55 /@home /home rw - btrfs /dev/nvme2n1 rw,subvolid=256,subvol=/@home
96 28 0:60 / /merged rw - overlay overlay rw,lowerdir=/l\0541:/l\134:2,upperdir=/u,workdir=/w
this line is nothing
"""
NODE_MOUNTS = parse_mounts(_NODE)


def mounted(number: int) -> Mount:
    return next(mount for mount in NODE_MOUNTS if mount.number == number)
