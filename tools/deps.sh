#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes sure that what a make target needs is installed: deps.sh build|check|bench|kernels|programs
# Silent when everything is there.  As root on Debian installs what is missing; otherwise names
# it and exits with status 2.
missing=
lib=/usr/lib/x86_64-linux-gnu

need_cmd() { # package command
	command -v "$2" >/dev/null 2>&1 || PATH=$PATH:/usr/sbin:/sbin command -v "$2" >/dev/null 2>&1 ||
		missing="$missing $1"
}

# Without a compiler, the usual place tells whether only that is missing.
need_header() { # package header
	[ -e "/usr/include/$2" ] ||
		echo "#include <$2>" | ${CC:-cc} -M - >/dev/null 2>&1 || missing="$missing $1"
}

need_build() {
	need_cmd gcc "${CC:-cc}"
	need_cmd libc6-dev ld
	need_cmd meson meson
	need_cmd ninja-build ninja
	need_cmd pkg-config pkg-config
	need_header libc6-dev stdio.h
	need_header libzydis-dev Zydis/Zydis.h
	need_header libcmocka-dev cmocka.h
}

# What bench/ and tests/ run besides the compiler.
need_check() {
	need_build
	need_cmd python3 python3
	need_cmd gcc gcc
	need_cmd binutils objdump
	need_cmd clang clang
	need_cmd spin spin
	need_cmd cppcheck cppcheck
	need_cmd mandoc mandoc
	need_cmd xz-utils xz
	need_cmd util-linux setpriv
	need_cmd strace strace
	need_cmd redis-server redis-server
	need_cmd redis-tools redis-benchmark
	need_file python3-numpy /usr/lib/python3/dist-packages/numpy
}

need_file() { # package file
	[ -e "$2" ] || missing="$missing $1"
}

# A server of the newest version that is installed has a directory of its own.
need_postgres() {
	ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
}

case $1 in
build) need_build ;;
check) need_check ;;
bench)
	need_build
	need_cmd fio fio
	need_cmd python3 python3
	need_cmd mount swapon
	need_cmd util-linux mkswap
	need_cmd redis-server redis-server
	;;
kernels)
	need_build
	need_cmd qemu-system-x86 qemu-system-x86_64
	need_cmd busybox-static busybox
	need_cmd cpio cpio
	need_cmd e2fsprogs mkfs.ext4
	;;
programs)
	need_build
	need_cmd python3 python3
	need_cmd xz-utils xz
	need_cmd gcc gcc
	need_cmd util-linux setpriv
	need_cmd redis-server redis-server
	need_cmd redis-tools redis-benchmark
	need_cmd nginx-light nginx
	need_postgres
	need_cmd git git
	need_cmd make make
	need_cmd default-jdk-headless javac
	need_cmd nodejs node
	need_cmd stress-ng stress-ng
	need_file python3-numpy /usr/lib/python3/dist-packages/numpy
	need_file libopenblas0-pthread "$lib/openblas-pthread/libopenblas.so.0"
	need_file libjemalloc2 "$lib/libjemalloc.so.2"
	need_file libmimalloc2.0 "$lib/libmimalloc.so.2"
	need_file libtcmalloc-minimal4 "$lib/libtcmalloc_minimal.so.4"
	;;
*)
	echo "usage: deps.sh build|check|bench|kernels|programs" >&2
	exit 2
	;;
esac

# Once each, in this order.
missing=$(printf '%s\n' $missing | awk 'NF && !seen[$0]++' | tr '\n' ' ')
missing=${missing% }
[ -n "$missing" ] || exit 0

fail() {
	echo "$1: missing packages: $missing; install them: apt-get install $missing" >&2
	exit 2
}

[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail deps.sh
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp) || exit 2
trap 'rm -f "$log"' EXIT
echo "installing $missing" >&2

# The lists are fetched only if apt cannot do with those that it has.
install() {
	apt-get install -y -qq --no-install-recommends $missing >"$log" 2>&1 </dev/null
}
install || { apt-get update -qq >/dev/null 2>&1 && install; } || {
	tail -n 5 "$log" >&2
	fail "deps.sh: apt-get failed"
}
