/* SPDX-License-Identifier: MIT */
/*
 * What the files of the server share: control.c has the thread and its life, socket.c the name that
 * clients find, session.c one connection and its request.
 */
#ifndef EM_CONTROL_SERVER_H
#define EM_CONTROL_SERVER_H

#include <stdbool.h>

/* ---- socket.c ---------------------------------------------------------------------- */

/* The name is of this directory and process; dir NULL: as before, the process is another. */
void em_control_socket_name(const char *dir);
/* Listens under the name.  0 or -errno. */
int em_control_socket_bind(void);
/* False: not there, or not ours to remove any more. */
bool em_control_socket_unlink(void);
void em_control_socket_close(void);
/* -1: none. */
int em_control_socket_fd(void);
/* fd, closed on exec and out of the program's way; or the -errno that was given. */
int em_control_move_high(long fd);

/* ---- session.c ---------------------------------------------------------------------- */

/* At the start: who may ask is found out while the process is still the user that began it. */
void em_control_session_init(void);
void em_control_session_fork_child(void);
/* Takes one connection and does what it asks for.  False: a filter of the program's forbids what connections
   need. */
bool em_control_session_serve(void);

#endif
