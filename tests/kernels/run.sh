#!/bin/bash
# SPDX-License-Identifier: MIT
# The suite under other kernels, in a virtual machine each.  Prints TAP.
#
#   run.sh [BUILD]
#     KERNELS           series to test (default "6.1 6.12"), or directories as of prepare.sh
#     SECONDS_PER_CELL  length of each torture run (default 10)
#     CELLS             only tests whose name matches this extended regular expression
#     SEED              the first seed, instead of a new one
#     ACCEL             kvm or tcg, instead of KVM where it works
#     LIMIT             seconds until a virtual machine is given up (default 5400)
#     LOGS              where the console logs stay (default BUILD/kernels)
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${1:-${BUILD:-build}}" && pwd) || exit 1
logs=${LOGS:-$build/kernels}
seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
n=0
bad=0
PATH=$PATH:/usr/sbin:/sbin

skip() {
	echo "1..0 # SKIP $1"
	exit 77
}

[ -x "$build/extmem" ] && [ -x "$build/tests/torture/torture" ] ||
	skip "$build holds no extmem with tests"
for tool in qemu-system-x86_64 busybox cpio mkfs.ext4; do
	command -v $tool >/dev/null || skip "$tool is not installed"
done
busybox --help >/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1 ||
	skip "busybox is not the static one"
work=$(mktemp -d "${TMPDIR:-/var/tmp}/extmem-kernels-XXXXXX") || exit 1
mkdir -p "$logs" || exit 1
# $vm: the virtual machine of the moment, when this is interrupted
trap '[ -z "$vm" ] || kill "$vm" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# Programs keep their places below the build directory, libraries go where ld.so looks first.
root_image() {
	local root=$work/root file lib
	mkdir -p "$root"/{bin,etc,extmem,lib/x86_64-linux-gnu,lib64}
	cp "$(command -v busybox)" "$root/bin/busybox"
	cp "$here/guest.sh" "$root/init"
	chmod 755 "$root/init"
	(cd "$build" && find extmem libextmem-preload.so tests/torture tests/races tests/store \
		tests/intercept \
		-maxdepth 1 -type f \( -perm -u+x -o -name '*.so*' \) -print |
		cpio -pdm --quiet "$root/extmem") || return 1
	find "$root/extmem" -type f | while read -r file; do
		ldd "$build/${file#"$root/extmem/"}"
	done | sed -nE 's/^[^/]*(\/[^ ]*) \(0x.*/\1/p' | sort -u | grep -v "^$build/" >"$work/libs"
	# libc opens it by itself to end a thread
	ls /lib/x86_64-linux-gnu/libgcc_s.so.1 >>"$work/libs" 2>/dev/null
	while read -r lib; do
		case $lib in
		*/ld-linux-x86-64.so.2) cp -L "$lib" "$root/lib64/" ;;
		*) cp -L "$lib" "$root/lib/x86_64-linux-gnu/" ;;
		esac || return 1
	done <"$work/libs"
	(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/root.cpio.gz"
}

# A module after those it depends on, unpacked and listed for insmod; nothing for one built in.
add_module() { # modules name
	local file out=$work/kernel/modules/$2.ko needs need
	[ ! -e "$out" ] || return 0
	file=$(find "$1" -name "$2.ko*" | head -n 1)
	case $file in
	"") return 0 ;;
	*.xz) xz -dc "$file" ;;
	*.gz) gzip -dc "$file" ;;
	*) cat "$file" ;;
	esac >"$out" || return 1
	needs=$(grep -a -z '^depends=' "$out" | tr -d '\0')
	for need in $(echo "${needs#depends=}" | tr , ' '); do
		add_module "$1" "$need" || return 1
	done
	echo "$2.ko" >>"$work/kernel/modules/order"
}

# What the kernel has not built in, a second archive after the first.
kernel_image() { # directory
	local root=$work/kernel module
	rm -rf "$root"
	mkdir -p "$root/modules"
	: >"$root/modules/order"
	for module in virtio_pci virtio_blk crc32c_generic ext4; do
		add_module "$1/lib/modules" "$module" || return 1
	done
	printf '%s\n' "seconds=${SECONDS_PER_CELL:-10}" "seed=$seed" "only='$CELLS'" >"$root/config"
	(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/kernel.cpio.gz"
	cat "$work/root.cpio.gz" "$work/kernel.cpio.gz" >"$work/initrd"
}

disk() {
	rm -f "$work/disk"
	truncate -s 1G "$work/disk" && mkfs.ext4 -q -F "$work/disk"
}

tell() { # status name
	n=$((n + 1))
	case $1 in
	0) echo "ok $n - $2" ;;
	77) echo "ok $n - $2 # SKIP see the log" ;;
	*)
		echo "not ok $n - $2 (status $1)"
		bad=$((bad + 1))
		;;
	esac
}

# The part of the log that belongs to a test, as comments
excerpt() { # log test
	tr -d '\r' <"$1" | awk -v start="=== $2: " 'index($0, start) == 1 { on = !on } on' |
		grep -v '^\[ .*\(OK\|RUN\)' | tail -n 40 | sed 's/^/# /'
}

machine() { # vmlinuz accelerator seconds arguments...
	local image=$1 accel=$2 limit=$3
	shift 3
	# exec, so that killing this shell ends the machine; not every KVM within a virtual
	# machine can set MSR_IA32_ARCH_CAPABILITIES
	exec timeout -k 10 "$limit" qemu-system-x86_64 -accel "$accel" -machine q35 \
		-cpu max,la57=off,arch-capabilities=off -smp 2 -m 1G -display none -monitor none \
		-nodefaults -no-reboot -kernel "$image" -append "console=ttyS0 panic=-1 quiet" \
		"$@" </dev/null
}

# KVM within a virtual machine may be there and hang: it works when a kernel without a root gets as
# far as its panic.
accelerator() { # vmlinuz
	if [ -z "$ACCEL" ]; then
		ACCEL=tcg
		[ -w /dev/kvm ] &&
			(machine "$1" kvm 20 -serial stdio) 2>/dev/null | grep -q 'Kernel panic' &&
			ACCEL=kvm
	fi
	echo "$ACCEL"
}

boot() { # vmlinuz log
	machine "$1" "$ACCEL" "${LIMIT:-5400}" -initrd "$work/initrd" \
		-drive "file=$work/disk,format=raw,if=virtio,cache=unsafe,aio=threads" \
		-serial "file:$2" -serial stdio
}

kernel() { # series directory
	local log=$logs/console-$1.log image status name ended=
	image=$(ls "$2"/boot/vmlinuz-* | head -n 1)
	kernel_image "$2" && disk || {
		tell 1 "$1: virtual machine prepared"
		return
	}
	ACCEL=$(accelerator "$image")
	echo "# $1: ${image##*/vmlinuz-} under $ACCEL, console log $log"
	: >"$log"
	exec 3< <(boot "$image" "$log" 2>"$work/qemu")
	vm=$!
	while read -r status name <&3; do
		status=${status%$'\r'}
		name=${name%$'\r'}
		case $status in
		end)
			ended=1
			;;
		[0-9]*)
			tell "$status" "$1: $name"
			[ "$status" = 0 ] || [ "$status" = 77 ] || excerpt "$log" "$name"
			;;
		esac
	done
	exec 3<&-
	wait "$vm"
	vm=
	if [ -n "$ended" ]; then
		tell 0 "$1: all tests ran"
	else
		tell 1 "$1: all tests ran"
		{ tail -n 40 "$log" | tr -d '\r'; cat "$work/qemu"; } | sed 's/^/# /'
	fi
}

root_image || {
	echo "Bail out! the root image was not made"
	exit 1
}
for series in ${KERNELS:-6.1 6.12}; do
	if [ -d "$series" ]; then
		set -- "$(basename "$series")" "$series"
	else
		set -- $("$here/prepare.sh" "$series")
	fi
	if [ $# = 2 ]; then
		kernel "$1" "$2"
	else
		tell 1 "$series: kernel found"
	fi
done
echo "1..$n"
echo "# $((n - bad)) of $n passed, seed $seed, logs in $logs"
[ $bad = 0 ]
