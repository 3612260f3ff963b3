/* SPDX-License-Identifier: MIT */
/* The client's side of live control: see src/control/control.h for the protocol. */
#ifndef EXTMEM_CTL_H
#define EXTMEM_CTL_H

#include <stddef.h>
#include <sys/types.h>

/* Connects to the control socket of a process.  The descriptor, or -errno with a line in err. */
int ctl_connect(long pid, char *err, size_t err_len);

/* Sends the request line, reads the whole answer.  0 and *body (to be freed, terminated), or -errno with
   a line in err.  Closes fd. */
int ctl_ask(int fd, const char *request, char **body, char *err, size_t err_len);

/* Calls fn for every process that this user can control; fn closes fd.  Removes sockets of the dead. */
void ctl_each(void (*fn)(void *arg, int fd, long pid), void *arg);

/* The number of a top-level member of the statistics, 0 if there is none. */
unsigned long long ctl_stats_number(const char *json, const char *key);
/* The text of one, "" if there is none. */
void ctl_stats_string(const char *json, const char *key, char *out, size_t len);
/* For people. */
void ctl_stats_print(const char *json);

#endif
