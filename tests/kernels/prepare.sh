#!/bin/sh
# SPDX-License-Identifier: MIT
# Fetches Debian's newest kernel of each series and unpacks it into a cache; nothing is installed.
#
#   prepare.sh [SERIES...]          default: 6.1 6.12
#
# Prints one line a series: SERIES DIRECTORY.  A directory holds what the package holds, below it
# boot/vmlinuz-* and lib/modules/*.  Without a network the newest cached kernel does.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/extmem/kernels
mkdir -p "$cache" || exit 1
[ $# -gt 0 ] || set -- 6.1 6.12

# The cloud flavour is a third of the size and has all that a virtual machine needs.
newest() { # series
	apt-cache pkgnames "linux-image-$1." |
		grep -E "^linux-image-$1\.[0-9][0-9.+a-z~-]*-cloud-amd64$" |
		grep -v unsigned | sort -V | tail -n 1
}

fetch() { # package
	tmp=$(mktemp -d "$cache/tmp-XXXXXX") || return 1
	# apt drops its rights for downloads, and /root/.cache is out of reach for its user
	chmod 755 "$tmp"
	if (cd "$tmp" && apt-get -qq -o APT::Sandbox::User=root download "$1") >&2 &&
		dpkg-deb -x "$tmp/$1"_*.deb "$tmp/root" &&
		ls "$tmp"/root/boot/vmlinuz-* >/dev/null; then
		mv "$tmp/root" "$cache/$1" 2>/dev/null || [ -d "$cache/$1" ]
		status=$?
	else
		status=1
	fi
	rm -rf "$tmp"
	return $status
}

failed=0
for series; do
	package=$(newest "$series")
	if [ -n "$package" ] && [ ! -d "$cache/$package" ]; then
		echo "fetching $package" >&2
		fetch "$package" || echo "$package: not fetched" >&2
	fi
	[ -d "$cache/$package" ] && [ -n "$package" ] || package=$(
		ls "$cache" | grep -E "^linux-image-$series\.[0-9].*-cloud-amd64$" | sort -V | tail -n 1)
	if [ -n "$package" ]; then
		echo "$series $cache/$package"
	else
		echo "no kernel $series: apt offers none and $cache holds none" >&2
		failed=1
	fi
done
exit $failed
