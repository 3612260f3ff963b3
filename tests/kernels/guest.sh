#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# Runs as init in the virtual machine.  What tests print goes to the console, which is the log; one
# line a test goes to the second serial port: STATUS NAME.  `run.sh` makes TAP of them.
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /tmp /var/tmp /root
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs dev /dev
$bb --install -s /bin
export PATH=/bin HOME=/root
exec </dev/console >/dev/console 2>&1

results=/dev/ttyS1
stty -F $results raw -echo
# An error on the console has to stop short of a reboot, which would run everything again.
trap 'poweroff -f' EXIT

mkdir -p /dev/shm
mount -t tmpfs -o mode=1777 shm /dev/shm
chmod 1777 /tmp
while read -r module; do
	insmod "/modules/$module" || echo "$module: not loaded"
done </modules/order
mount -t ext4 /dev/vda /var/tmp
disk=$?
chmod 1777 /var/tmp
echo 'root:x:0:0::/root:/bin/sh' >/etc/passwd
echo 'user:x:1000:1000::/tmp:/bin/sh' >>/etc/passwd
echo 'root:x:0:' >/etc/group
echo 'user:x:1000:' >>/etc/group
ip link set lo up

seconds=10
only=
seed=1
. /config
tests=/extmem/tests
mask=
user=
opts=

# cell NAME LIMIT COMMAND...: $mask and $user hold how
cell() {
	name=$1
	limit=$2
	shift 2
	[ -z "$only" ] || echo "$name" | grep -Eq -- "$only" || return 0
	echo "=== $name: $*"
	if [ -n "$user" ]; then
		timeout -s KILL "$limit" su -s /bin/sh "$user" -c "EXTMEM_MASK=$mask $*"
	else
		EXTMEM_MASK=$mask timeout -s KILL "$limit" "$@"
	fi
	status=$?
	# where a segmentation fault happened
	[ $status = 0 ] || dmesg | tail -n 4
	echo "=== $name: status $status, up $(cut -d ' ' -f 1 /proc/uptime) s"
	echo "$status $name" >$results
}

paged() { # name limit program args...
	name=$1
	limit=$2
	shift 2
	cell "$name" "$limit" /extmem/extmem run $opts -- "$@"
}

torture() { # name args...
	name=$1
	shift
	seed=$(((seed * 1103515245 + 12345) % 2147483648))
	paged "torture $name, seed $seed" $((seconds * 6 + 60)) $tests/torture/torture \
		--seed $seed --seconds "$seconds" --threads 4 --bytes 8M --stall 60 "$@"
}

echo "=== $(uname -r)"
export NO_COLOR=1 TAP_SECONDS=240
cell "swap on a disk" 10 test $disk = 0
cell "doctor" 60 /extmem/extmem doctor
cell "doctor as an ordinary user's" 60 su -s /bin/sh user -c "/extmem/extmem doctor >/tmp/doctor"
grep -A 1 -E '^  (yes|no) ' /tmp/doctor

# slots and tree do nothing that a kernel could do differently, and take minutes
for test in open transfer fork ioq; do
	cell "store $test" 120 $tests/store/test_store_$test
done
cell "intercept calls" 120 $tests/intercept/test_calls
cell "intercept dlopen" 120 $tests/intercept/test_dlopen $tests/intercept/libhook-test-dl.so

cell "mm_semantics natively" 300 $tests/torture/mm_semantics
cell "syscalls natively" 300 $tests/torture/syscalls
for delivery in upcall thread; do
	opts="--dram 2M --delivery $delivery"
	paged "mm_semantics $delivery" 900 $tests/torture/mm_semantics
	paged "syscalls $delivery" 600 $tests/torture/syscalls
	paged "races $delivery" 1800 $tests/races/races
	paged "fork_deep $delivery" 1800 $tests/torture/fork_deep --mib 2 --limit 900
done

for delivery in upcall thread; do
	for policy in 2q fifo; do
		opts="--dram 2M --delivery $delivery --policy $policy"
		torture "$delivery $policy" --ops all
	done
	opts="--dram 2M --delivery $delivery"
	mask=uring
	torture "$delivery without io_uring" --ops all
	mask=move,process_madvise,wp,uring
	torture "$delivery without $mask" --ops all
	mask=
	torture "$delivery, remaps" --ops remap,map,rw,count
	torture "$delivery, forks" --ops fork,rw,malloc
done

user=user
opts="--dram 2M --swap /var/tmp"
paged "mm_semantics as an ordinary user" 900 $tests/torture/mm_semantics
paged "syscalls as an ordinary user" 600 $tests/torture/syscalls
torture "as an ordinary user" --ops all
mask=uring
torture "as an ordinary user without io_uring" --ops all

dmesg | grep -E 'BUG:|WARNING:|Oops|blocked for more than|Out of memory' >/tmp/dmesg &&
	cat /tmp/dmesg
user=
cell "nothing wrong in the kernel's log" 10 test ! -s /tmp/dmesg
echo "end" >$results
sync
poweroff -f
