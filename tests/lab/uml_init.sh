#!/bin/bash
# The first process of the guest. It exports /mnt/d over NFSv4.2, mounts it at /mnt/n, and runs a command.
# The kernel's command line has script=COMMAND (with commas for spaces) and out=DIRECTORY, a writable directory of the host.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/dev/shm TMPDIR=/dev/shm LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t tmpfs tmpfs /run
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/shm /dev/pts && mount -t tmpfs shm /dev/shm && mount -t devpts devpts /dev/pts
option() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p" | tr ',' ' '; }
mount -t hostfs none "$(option out)" -o "$(option out)"
mount -t tmpfs tmpfs /mnt && mkdir /mnt/d /mnt/n /mnt/kernel && mount -t tmpfs tmpfs /mnt/d
ip link set lo up

mkdir -p /mnt/kernel/lib/modules && ln -s "/usr/lib/uml/modules/$(uname -r)" /mnt/kernel/lib/modules/
for module in nfs nfsv4 nfsd; do modprobe -d /mnt/kernel "$module"; done
mount -t tmpfs tmpfs /var/lib
mkdir -p /var/lib/nfs/{v4recovery,rpc_pipefs,sm,sm.bak,nfsdcltrack} && touch /var/lib/nfs/{etab,rmtab,xtab}
mount -t rpc_pipefs rpc /var/lib/nfs/rpc_pipefs && mount -t nfsd nfsd /proc/fs/nfsd
exportfs -o rw,no_root_squash,insecure,fsid=0,no_subtree_check 127.0.0.1:/mnt/d 2>/dev/null
rpc.mountd -N 2 -N 3 --no-udp
rpc.nfsd -N 3 -V 4 -V 4.2 --no-udp 2
echo Y >/proc/fs/nfsd/v4_end_grace # no client has locks to reclaim
mount.nfs4 -o vers=4.2,soft,timeo=50,retrans=1 127.0.0.1:/ /mnt/n

$(option script) >"$(option out)/log" 2>&1 </dev/null
echo $? >"$(option out)/code"
sync
echo o >/proc/sysrq-trigger
sleep 10
