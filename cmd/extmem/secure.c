/* SPDX-License-Identifier: MIT */
/*
 * Secure execution as the kernel decides it (security/commoncap.c): AT_SECURE is set if
 *   - the new effective user or group is not the real one, or (seen on 6.18) not
 *     the present one; set-id bits do that unless the mount is nosuid or no_new_privs is set,
 *   - the real user is not root, and the file has capabilities that it gives.
 * So a setuid-root program run by root is nothing special, and a plain program
 * run by a process that is itself half-way between two users is.
 */
#include "secure.h"

#include <endian.h>
#include <linux/capability.h>
#include <linux/xattr.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static void own_inheritable(uint32_t set[2])
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	memset(data, 0, sizeof(data));
	syscall(SYS_capget, &head, data);
	set[0] = data[0].inheritable;
	set[1] = data[1].inheritable;
}

/* Does the file have capabilities that this process would get, or the "effective" flag,
   which alone suffices for AT_SECURE? */
static bool gains_file_caps(int fd)
{
	struct vfs_ns_cap_data cap;
	uint32_t inheritable[2], gained;
	ssize_t n = fgetxattr(fd, XATTR_NAME_CAPS, &cap, sizeof(cap));
	unsigned words;

	if (n < (ssize_t)XATTR_CAPS_SZ_1)
		return false;
	if (le32toh(cap.magic_etc) & VFS_CAP_FLAGS_EFFECTIVE)
		return true;
	words = n >= (ssize_t)XATTR_CAPS_SZ_2 ? 2 : 1;
	own_inheritable(inheritable);
	for (unsigned w = 0; w < words; w++) {
		gained = le32toh(cap.data[w].inheritable) & inheritable[w];
		for (unsigned b = 0; b < 32; b++)
			if ((le32toh(cap.data[w].permitted) >> b & 1) &&
			    prctl(PR_CAPBSET_READ, w * 32 + b, 0, 0, 0) == 1)
				gained |= 1u << b;
		if (gained)
			return true;
	}
	return false;
}

const char *secure_exec_reason(int fd, const struct stat *st)
{
	uid_t euid = geteuid();
	gid_t egid = getegid();
	struct statvfs fs;
	bool nosuid = !fstatvfs(fd, &fs) && (fs.f_flag & ST_NOSUID);

	if (!nosuid && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) {
		if (st->st_mode & S_ISUID)
			euid = st->st_uid;
		/* Without group execution the bit once meant mandatory locking. */
		if ((st->st_mode & S_ISGID) && (st->st_mode & S_IXGRP))
			egid = st->st_gid;
	}
	/* Away from the effective user counts too, even if it is back to the real one. */
	if (euid != getuid() || euid != geteuid())
		return st->st_mode & S_ISUID ? "setuid program of another user"
					     : "real and effective user differ";
	if (egid != getgid() || egid != getegid())
		return st->st_mode & S_ISGID ? "setgid program of another group"
					     : "real and effective group differ";
	if (!nosuid && getuid() != 0 && gains_file_caps(fd))
		return "program with file capabilities";
	return NULL;
}
