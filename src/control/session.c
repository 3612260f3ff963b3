/* SPDX-License-Identifier: MIT */
/*
 * One connection: one request and its answer.
 *
 * accept(2) takes the lowest free descriptor, which the program's next open should get.  So each connection
 * is served by a short-lived thread with a descriptor table of its own, which hands the request to the
 * control thread and the reply to the client: that one has the program's table.
 */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "server.h"

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2
#endif

enum {
	READ_MS = 2000,
	SEND_MS = 10000,
	SLICE_MS = 100,
};

static unsigned uid; /* of the program when it started */
static struct em_rawthread connection;

/* One request on its way between the two threads. */
enum pass { PASS_READING, PASS_REQUEST, PASS_REPLY };
static struct {
	uint32_t pass; /* futex */
	struct em_control_request request;
	struct em_control_reply reply;
	bool refused; /* a filter of the program's forbids what the connection needs */
} job;

/* ---- the connection's thread --------------------------------------------------------------- */

/* Nothing but the listening socket, in a table of its own. */
static long own_descriptors(unsigned keep)
{
	long ret = em_syscall3(SYS_close_range, keep + 1, ~0u, CLOSE_RANGE_UNSHARE);

	return ret || !keep ? ret : em_syscall3(SYS_close_range, 0, keep - 1, 0);
}

static bool ready(int fd, short events, uint64_t until_ns)
{
	struct timespec slice = { 0, SLICE_MS * 1000000 };
	struct pollfd p = { .fd = fd, .events = events };

	while (!em_control_stopping() && em_now_ns() < until_ns) {
		p.revents = 0;
		slice = (struct timespec){ 0, SLICE_MS * 1000000 };
		if (em_syscall5(SYS_ppoll, &p, 1, &slice, NULL, 0) == 1)
			return true;
	}
	return false;
}

/* Length of the line without its newline, or -errno. */
static long read_line(int fd, char *line)
{
	uint64_t until = em_now_ns() + READ_MS * 1000000ull;
	size_t n = 0;

	while (n < EM_CONTROL_LINE) {
		long got = em_syscall6(SYS_recvfrom, fd, (long)(line + n), (long)(EM_CONTROL_LINE - n),
				       MSG_DONTWAIT, 0, 0);

		if (got == -EAGAIN || got == -EINTR) {
			if (!ready(fd, POLLIN, until))
				return -ETIMEDOUT;
			continue;
		}
		if (got <= 0)
			return got ? got : -ECONNRESET;
		for (long i = 0; i < got; i++, n++)
			if (line[n] == '\n')
				return (long)n;
	}
	return -EMSGSIZE;
}

static void send_all(int fd, const char *p, size_t n)
{
	uint64_t until = em_now_ns() + SEND_MS * 1000000ull;

	while (n) {
		long put = em_syscall6(SYS_sendto, fd, (long)p, (long)n, MSG_NOSIGNAL | MSG_DONTWAIT, 0,
				       0);

		if (put == -EAGAIN || put == -EINTR) {
			if (!ready(fd, POLLOUT, until))
				return;
			continue;
		}
		if (put <= 0)
			return;
		p += put;
		n -= (size_t)put;
	}
}

/* The directory keeps others out already; this is for when it does not. */
static bool is_allowed(int fd)
{
	struct ucred cred = { 0, ~0u, ~0u };
	unsigned len = sizeof(cred);

	if (em_syscall5(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return false;
	return cred.uid == 0 || cred.uid == uid;
}

static void set_pass(uint32_t to)
{
	__atomic_store_n(&job.pass, to, __ATOMIC_SEQ_CST);
	em_futex_wake(&job.pass, 1 << 30);
}

static uint32_t wait_pass(uint32_t not_this)
{
	uint32_t now;

	while ((now = __atomic_load_n(&job.pass, __ATOMIC_SEQ_CST)) == not_this)
		em_futex_wait(&job.pass, not_this, 0);
	return now;
}

static void ask_and_answer(int fd)
{
	char line[EM_CONTROL_LINE];
	const char *why = "request too long";
	long n = read_line(fd, line); /* a stranger's too: what is unread at the end takes the answer away */

	if (n < 0 && n != -EMSGSIZE)
		return;
	if (!is_allowed(fd)) {
		em_control_error(&job.reply, "only the program's own user and root may control it");
	} else if (n < 0 || em_control_parse(line, (size_t)n, &job.request, &why)) {
		em_control_error(&job.reply, why);
	} else {
		set_pass(PASS_REQUEST);
		wait_pass(PASS_REQUEST);
	}
	send_all(fd, job.reply.head, job.reply.head_len);
	send_all(fd, job.reply.body ? job.reply.body : job.reply.text, job.reply.body_len);
}

static void connection_main(void *arg)
{
	unsigned from = (unsigned)(uintptr_t)arg;
	long fd = own_descriptors(from);

	if (!fd) {
		fd = em_syscall4(SYS_accept4, from, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			ask_and_answer((int)fd);
		if (fd >= 0)
			em_sys_close((int)fd);
	}
	job.refused = fd == -EPERM || fd == -EACCES || fd == -ENOSYS;
	set_pass(PASS_REPLY);
}

/* ---- the control thread's part ---------------------------------------------------------------- */

static void nap(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	em_syscall5(SYS_ppoll, NULL, 0, &ts, NULL, 0);
}

bool em_control_session_serve(void)
{
	em_memzero(&job, sizeof(job));
	if (em_rawthread_start_in(&connection, connection_main,
				  (void *)(uintptr_t)em_control_socket_fd())) {
		nap(SLICE_MS); /* no memory or no thread left: the client waits */
		return true;
	}
	if (wait_pass(PASS_READING) == PASS_REQUEST) {
		em_control_execute(&job.request, &job.reply);
		set_pass(PASS_REPLY);
	}
	em_rawthread_join(&connection);
	em_control_reply_free(&job.reply);
	return !job.refused;
}

void em_control_session_init(void)
{
	uid = (unsigned)em_syscall0(SYS_geteuid);
}

void em_control_session_fork_child(void)
{
	connection.alive = 0;
}
