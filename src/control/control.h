/* SPDX-License-Identifier: MIT */
/*
 * Live control: `extmem ctl` talks to a running program through a unix socket.
 *
 * Protocol, version 1.  One request a connection:
 *
 *	extmem 1 budget BYTES
 *	extmem 1 policy NAME[,key=value]...
 *	extmem 1 evict all
 *	extmem 1 load all
 *	extmem 1 stats
 *
 * one line of printable ASCII, words separated by one space, at most EM_CONTROL_LINE bytes
 * with its newline.  The answer is "ok LENGTH\n" and LENGTH bytes, or "error TEXT\n".  The bytes are
 * the JSON object of --stats, or for the other verbs a line of "key value" pairs.
 */
#ifndef EM_CONTROL_H
#define EM_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EM_CONTROL_VERSION 1u
#define EM_CONTROL_LINE 1280u
#define EM_CONTROL_PATH 108u /* sizeof sun_path */
#define EM_CONTROL_DIRS 4u

enum em_control_verb {
	EM_CONTROL_BUDGET,
	EM_CONTROL_POLICY,
	EM_CONTROL_EVICT,
	EM_CONTROL_LOAD,
	EM_CONTROL_STATS,
};

struct em_control_request {
	enum em_control_verb verb;
	uint64_t bytes;
	char name[64];
	char args[1025];
};

/* line: len bytes without the newline, anything may be in them.  0, or -EINVAL and *why. [any] */
int em_control_parse(const char *line, size_t len, struct em_control_request *r,
		     const char **why);

/* ---- where sockets are (dir.c; ordinary context) ------------------------------- */

/* The directories that a process of this user tries, best first; runtime and tmp are its XDG_RUNTIME_DIR
   and TMPDIR, or NULL.  Returns how many. */
unsigned em_control_dirs(unsigned uid, const char *runtime, const char *tmp,
			 char dir[EM_CONTROL_DIRS][EM_CONTROL_PATH]);
/* Makes the directory, or checks that it is private (0700, ours).  0 or -errno. */
int em_control_dir_make(const char *dir);
/* Removes the sockets of processes that are gone. */
void em_control_dir_clean(const char *dir);
/* "123" -> 123; 0: not the name of a socket. */
long em_control_name_pid(const char *name);

/* ---- the server (control.c, session.c, socket.c) ---------------------------------------------------------------- */

struct em_thread;

struct em_control_reply {
	char head[512];		/* "ok N\n" or "error TEXT\n" */
	char text[256];
	char *body;		/* NULL: text */
	size_t head_len, body_len, body_room;
};

/* Starts the thread that serves dir.  0 or -errno. */
int em_control_start(const char *dir);
void em_control_fork_child(void);
/* The process is about to exit: the socket goes first. */
void em_control_exit(void);
/* Before and after execve: a program that is not managed must not leave our socket behind. */
void em_control_before_exec(void);
void em_control_exec_failed(void);
/* A thread of the program is leaving with exit(2), not exit_group. */
void em_control_thread_leaves(int status);
/* No control and no service thread meanwhile: unshare(CLONE_NEWUSER) wants a process with one thread. */
void em_control_pause(void);
void em_control_resume(void);
/* Should a long command give up? */
bool em_control_stopping(void);
/* The descriptors in the program's table, -1: none. */
size_t em_control_fds(int *fds, size_t max);

/* verbs.c */
void em_control_execute(const struct em_control_request *q, struct em_control_reply *r);
void em_control_reply_free(struct em_control_reply *r);
void em_control_error(struct em_control_reply *r, const char *text);

#endif
