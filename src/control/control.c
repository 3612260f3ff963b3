/* SPDX-License-Identifier: MIT */
/*
 * The control thread: one socket, one request at a time.
 *
 * accept(2) takes the lowest free descriptor, which the program's next open should get.  So each connection
 * is served by a short-lived thread with a descriptor table of its own, which hands the request to the
 * control thread and the reply to the client; the control thread has the program's table, because the
 * store's descriptors are there.  It keeps the credentials and the root with which the process started: a
 * program that has changed its user or its root still takes its socket with it when it ends.
 *
 * The socket listens under a temporary name before it gets its own, so whoever finds one that
 * refuses knows that its process is gone.
 */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "../core/core.h"
#include "../core/lock.h"
#include "../core/sys.h"

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2
#endif

/* A forked child that soon execs, as most do, never makes a socket. */
enum {
	CHILD_DELAY_MS = 10,
	STOP_WAIT_MS = 2000,
	READ_MS = 2000,
	SEND_MS = 10000,
	SLICE_MS = 100,
	RECOUNT_MS_MAX = 2048,
};

/*
 * NONE -> WAITING -> BINDING -> BOUND; HELD: an exec is being tried; GONE: for good.
 * Changed by compare-and-swap only: the thread binds, program threads unbind.
 */
enum phase { NONE, WAITING, BINDING, BOUND, HELD, GONE };
enum want { WANT_STOP = 1, WANT_COUNT = 2 };

static struct {
	char dir[EM_CONTROL_PATH];
	char path[EM_CONTROL_PATH];
	uint32_t phase; /* futex */
	uint32_t want;
	int wake_fd, listen_fd; /* -1: none */
	int leader_status;
	bool leader_gone;
	uint32_t recount_ms; /* the thread's own */
	unsigned uid;
	struct em_rawthread thread, connection;
} ctl = { .wake_fd = -1, .listen_fd = -1 };

/* Calls of the program for which our threads are stopped. */
static struct pausing {
	struct em_mutex lock;
	uint32_t calls;
	bool stopped;
} pausing;

/* One request on its way between the two threads. */
enum pass { PASS_READING, PASS_REQUEST, PASS_REPLY };
static struct {
	uint32_t pass; /* futex */
	struct em_control_request request;
	struct em_control_reply reply;
	bool refused; /* a filter of the program's forbids what the connection needs */
} job;

static bool move_phase(uint32_t from, uint32_t to)
{
	if (!__atomic_compare_exchange_n(&ctl.phase, &from, to, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST))
		return false;
	em_futex_wake(&ctl.phase, 1 << 30);
	return true;
}

static uint32_t phase(void)
{
	return __atomic_load_n(&ctl.phase, __ATOMIC_SEQ_CST);
}

static void wake(uint32_t want)
{
	uint64_t one = 1;

	__atomic_fetch_or(&ctl.want, want, __ATOMIC_SEQ_CST);
	em_syscall3(SYS_write, ctl.wake_fd, &one, sizeof(one));
}

bool em_control_stopping(void)
{
	return __atomic_load_n(&ctl.want, __ATOMIC_RELAXED) & WANT_STOP;
}

size_t em_control_fds(int *fds, size_t max)
{
	if (max < 2)
		return 0;
	fds[0] = ctl.wake_fd;
	fds[1] = ctl.listen_fd;
	return 2;
}

/* ---- names ------------------------------------------------------------------------------ */

static char *put(char *p, const char *s)
{
	while (*s)
		*p++ = *s++;
	*p = 0;
	return p;
}

static void put_pid(char *p)
{
	char digit[12];
	int n = 0;

	for (unsigned v = (unsigned)em_engine.pid; v || !n; v /= 10)
		digit[n++] = (char)('0' + v % 10);
	while (n)
		*p++ = digit[--n];
	*p = 0;
}

static void make_path(char *path, const char *before_pid)
{
	put_pid(put(put(path, ctl.dir), before_pid));
}

/* ---- the socket --------------------------------------------------------------------------- */

static int move_high(long fd)
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
	put(un->sun_path, path);
	return (int)em_syscall3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* Does a process of another pid namespace have our name? */
static bool name_is_taken(void)
{
	struct sockaddr_un un;
	int fd = socket_at(ctl.path, &un);
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
		ret = em_syscall4(SYS_renameat, AT_FDCWD, temporary, AT_FDCWD, ctl.path);
	if (ret)
		em_syscall3(SYS_unlinkat, AT_FDCWD, temporary, 0);
	return ret;
}

static int bind_socket(void)
{
	char temporary[EM_CONTROL_PATH];
	struct sockaddr_un un;
	long ret;
	int fd;

	if (name_is_taken())
		return -EADDRINUSE;
	make_path(temporary, "/.");
	fd = move_high(socket_at(temporary, &un));
	if (fd < 0)
		return fd;
	ret = bind_temporary(fd, temporary, &un);
	if (ret)
		em_sys_close(fd);
	else
		ctl.listen_fd = fd;
	return (int)ret;
}

static bool unlink_path(void)
{
	return !em_syscall3(SYS_unlinkat, AT_FDCWD, ctl.path, 0);
}

static void close_socket(void)
{
	int fd = ctl.listen_fd;

	ctl.listen_fd = -1;
	if (fd >= 0)
		em_sys_close(fd);
}

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
	return cred.uid == 0 || cred.uid == ctl.uid;
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

/* ---- the control thread ---------------------------------------------------------------------- */

static void nap(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	em_syscall5(SYS_ppoll, NULL, 0, &ts, NULL, 0);
}

static void serve(void)
{
	em_memzero(&job, sizeof(job));
	if (em_rawthread_start_in(&ctl.connection, connection_main,
				  (void *)(uintptr_t)ctl.listen_fd)) {
		nap(SLICE_MS); /* no memory or no thread left: the client waits */
		return;
	}
	if (wait_pass(PASS_READING) == PASS_REQUEST) {
		em_control_execute(&job.request, &job.reply);
		set_pass(PASS_REPLY);
	}
	em_rawthread_join(&ctl.connection);
	em_control_reply_free(&job.reply);
	if (job.refused && move_phase(BOUND, GONE))
		unlink_path();
}

enum { NOBODY_KNOWS = 1000 };

/* Threads of the program that are left.  Rather too many than too few: ours are counted late. */
static long program_threads(void)
{
	struct stat st;

	if (em_syscall4(SYS_newfstatat, AT_FDCWD, "/proc/self/task", &st, 0) || st.st_nlink < 3)
		return NOBODY_KNOWS;
	return (long)st.st_nlink - 2 - em_rawthread_count - ctl.leader_gone;
}

/* Threads that leave at once each see the others, which are counted until they are gone: it takes one that
   stays to see that nobody is left. */
static void end_if_empty(void)
{
	if (program_threads() > 0)
		return;
	unlink_path();
	em_syscall1(SYS_exit_group, ctl.leader_status);
}

static void rebind(void)
{
	close_socket();
	move_phase(BINDING, bind_socket() ? GONE : BOUND);
}

/* Milliseconds; 0: no limit. */
static struct timespec *timeout(struct timespec *ts, bool waiting)
{
	uint32_t ms = waiting ? CHILD_DELAY_MS : ctl.recount_ms;

	*ts = (struct timespec){ ms / 1000, ms % 1000 * 1000000 };
	return ms ? ts : NULL;
}

static void recount(void)
{
	if (__atomic_fetch_and(&ctl.want, ~(uint32_t)WANT_COUNT, __ATOMIC_SEQ_CST) & WANT_COUNT)
		ctl.recount_ms = 1;
	else if (ctl.recount_ms)
		ctl.recount_ms = ctl.recount_ms < RECOUNT_MS_MAX ? 2 * ctl.recount_ms : 0;
	if (ctl.recount_ms)
		end_if_empty();
}

static void turn(void)
{
	struct pollfd p[2] = { { .fd = ctl.wake_fd, .events = POLLIN },
			       { .fd = phase() == BOUND ? ctl.listen_fd : -1, .events = POLLIN } };
	bool waiting = phase() == WAITING;
	struct timespec ts;
	uint64_t count;
	long n = em_syscall5(SYS_ppoll, p, 2, timeout(&ts, waiting), NULL, 0);

	if (n > 0 && p[0].revents)
		em_syscall3(SYS_read, ctl.wake_fd, &count, sizeof(count));
	if (em_control_stopping())
		return;
	recount();
	if (n == 0 && waiting && move_phase(WAITING, BINDING))
		rebind();
	else if (n > 0 && p[1].revents)
		serve();
}

static void control_main(void *arg)
{
	(void)arg;
	while (phase() != GONE && !em_control_stopping())
		turn();
	if (phase() == BOUND)
		unlink_path();
	close_socket();
	em_thread_exit();
	__atomic_store_n(&ctl.phase, GONE, __ATOMIC_SEQ_CST);
	em_futex_wake(&ctl.phase, 1 << 30);
}

/* ---- start, fork ------------------------------------------------------------------------------ */

static int start_thread(void)
{
	int ret;

	ctl.want = 0;
	ctl.wake_fd = move_high(em_syscall2(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK));
	ret = ctl.wake_fd < 0 ? ctl.wake_fd
			      : em_rawthread_start_in(&ctl.thread, control_main, NULL);
	if (!ret)
		return 0;
	if (ctl.phase == BOUND)
		unlink_path();
	ctl.phase = NONE;
	close_socket();
	if (ctl.wake_fd >= 0)
		em_sys_close(ctl.wake_fd);
	ctl.wake_fd = -1;
	return ret;
}

int em_control_start(const char *dir)
{
	int ret;

	put(ctl.dir, dir);
	ctl.uid = (unsigned)em_syscall0(SYS_geteuid);
	make_path(ctl.path, "/");
	/* Refused as such (old kernel, container), or only for its arguments? */
	ret = (int)em_syscall3(SYS_close_range, 1, 0, 0);
	if (ret != -EINVAL)
		return ret;
	ret = bind_socket();
	if (ret)
		return ret;
	ctl.phase = BOUND;
	return start_thread();
}

void em_control_fork_child(void)
{
	if (ctl.wake_fd >= 0)
		em_sys_close(ctl.wake_fd);
	close_socket();
	ctl.wake_fd = -1;
	ctl.leader_gone = false;
	ctl.recount_ms = 0;
	ctl.thread.alive = ctl.connection.alive = 0;
	pausing = (struct pausing){ .calls = 0 };
	if (ctl.phase == NONE)
		return;
	ctl.phase = WAITING;
	make_path(ctl.path, "/");
	start_thread();
}

/* ---- the end ------------------------------------------------------------------------------------ */

static void wait_while(uint32_t is, uint64_t ms)
{
	uint64_t until = em_now_ns() + ms * 1000000;

	while (phase() == is && em_now_ns() < until)
		em_futex_wait(&ctl.phase, is, SLICE_MS * 1000);
}

void em_control_exit(void)
{
	if (phase() == NONE || phase() == GONE || move_phase(WAITING, GONE) ||
	    move_phase(HELD, GONE))
		return;
	wait_while(BINDING, STOP_WAIT_MS);
	if (phase() == BOUND && unlink_path())
		return;
	/* Another root or another user: the thread has those of the start. */
	wake(WANT_STOP);
	wait_while(BOUND, STOP_WAIT_MS);
}

void em_control_before_exec(void)
{
	if (em_sys_getpid() != em_engine.pid || move_phase(WAITING, HELD))
		return;
	wait_while(BINDING, STOP_WAIT_MS);
	if (phase() == BOUND && unlink_path())
		move_phase(BOUND, HELD);
}

void em_control_exec_failed(void)
{
	if (em_sys_getpid() == em_engine.pid && move_phase(HELD, WAITING))
		wake(0);
}

/* Not an engine section: the thread that is waited for may be at the gate, and fork behind it. */
static uint64_t lock_pausing(void)
{
	uint64_t all = ~0ull, old;

	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	em_mutex_lock(&pausing.lock);
	return old;
}

static void unlock_pausing(uint64_t mask)
{
	em_mutex_unlock(&pausing.lock);
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
}

static bool stop_thread(void)
{
	if (phase() == NONE || phase() == GONE)
		return false;
	em_control_exit();
	wake(WANT_STOP);
	em_rawthread_join(&ctl.thread);
	em_sys_close(ctl.wake_fd);
	ctl.wake_fd = -1;
	return true;
}

static void start_thread_again(void)
{
	if (!bind_socket())
		ctl.phase = BOUND;
	if (ctl.phase == BOUND)
		start_thread();
}

/* Several threads of the program may be between pause and resume at once: the first ends ours and the last
   brings them back, or one would wait for a thread that the other has made meanwhile. */
void em_control_pause(void)
{
	uint64_t mask = lock_pausing();

	if (!pausing.calls++)
		pausing.stopped = stop_thread();
	em_service_stop();
	unlock_pausing(mask);
}

void em_control_resume(void)
{
	uint64_t mask = lock_pausing();

	if (!--pausing.calls && pausing.stopped)
		start_thread_again();
	unlock_pausing(mask);
}

/* A process whose last thread leaves with exit(2) ends; with threads of ours in it, it would not. */
void em_control_thread_leaves(int status)
{
	bool leader = em_sys_gettid() == em_engine.pid;
	long left = program_threads();

	if (left == 1 && em_rawthread_count) {
		em_control_exit();
		em_syscall1(SYS_exit_group, leader ? status : ctl.leader_status);
	}
	if (leader) {
		ctl.leader_status = status;
		ctl.leader_gone = true;
	}
	if (ctl.leader_gone && phase() != NONE && phase() != GONE)
		wake(WANT_COUNT);
}
