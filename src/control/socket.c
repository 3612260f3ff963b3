/* SPDX-License-Identifier: MIT */
/*
 * The listening socket and its name.
 *
 * It listens under a temporary name before it gets its own, so whoever finds one that refuses
 * knows that its process is gone.
 */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "server.h"

static struct {
	char dir[EM_CONTROL_PATH];
	char path[EM_CONTROL_PATH];
	int fd; /* -1: none */
} named = { .fd = -1 };

static void make_path(char *path, const char *before_pid)
{
	char *p = em_put_text(em_put_text(path, named.dir), before_pid);

	*em_put_number(p, (uint64_t)em_engine.pid, 10) = 0;
}

void em_control_socket_name(const char *dir)
{
	if (dir)
		*em_put_text(named.dir, dir) = 0;
	make_path(named.path, "/");
}

int em_control_move_high(long fd)
{
	long high = fd < 0 ? fd : em_syscall3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, em_engine.fd_min);

	if (fd >= 0)
		em_sys_close((int)fd);
	return (int)high;
}

static int socket_at(const char *path, struct sockaddr_un *un)
{
	em_memzero(un, sizeof(*un));
	un->sun_family = AF_UNIX;
	*em_put_text(un->sun_path, path) = 0;
	return (int)em_syscall3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* Does a process of another pid namespace have our name? */
static bool name_is_taken(void)
{
	struct sockaddr_un un;
	int fd = socket_at(named.path, &un);
	long ret;

	if (fd < 0)
		return true;
	ret = em_syscall3(SYS_connect, fd, &un, sizeof(un));
	em_sys_close(fd);
	return !ret || ret == -EAGAIN; /* busy */
}

static long bind_temporary(int fd, const char *temporary, struct sockaddr_un *un)
{
	long ret;

	em_syscall3(SYS_unlinkat, AT_FDCWD, temporary, 0);
	ret = em_syscall3(SYS_bind, fd, un, sizeof(*un));
	if (!ret)
		ret = em_syscall3(SYS_fchmodat, AT_FDCWD, temporary, 0600);
	if (!ret)
		ret = em_syscall2(SYS_listen, fd, 8);
	if (!ret)
		ret = em_syscall4(SYS_renameat, AT_FDCWD, temporary, AT_FDCWD, named.path);
	if (ret)
		em_syscall3(SYS_unlinkat, AT_FDCWD, temporary, 0);
	return ret;
}

int em_control_socket_bind(void)
{
	char temporary[EM_CONTROL_PATH];
	struct sockaddr_un un;
	long ret;
	int fd;

	if (name_is_taken())
		return -EADDRINUSE;
	make_path(temporary, "/.");
	fd = em_control_move_high(socket_at(temporary, &un));
	if (fd < 0)
		return fd;
	ret = bind_temporary(fd, temporary, &un);
	if (ret)
		em_sys_close(fd);
	else
		named.fd = fd;
	return (int)ret;
}

bool em_control_socket_unlink(void)
{
	return !em_syscall3(SYS_unlinkat, AT_FDCWD, named.path, 0);
}

void em_control_socket_close(void)
{
	int fd = named.fd;

	named.fd = -1;
	if (fd >= 0)
		em_sys_close(fd);
}

int em_control_socket_fd(void)
{
	return named.fd;
}
