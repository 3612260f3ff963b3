/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target for the server behind the control socket, with a live engine: run it under extmem, it talks to
 * its own socket.  What must hold for any bytes, in any pieces:
 *   the answer is one of the protocol's, and the one that the parser gives where that refuses;
 *   the program's memory stays right, whatever was asked for;
 *   the next client is served.
 * With clang -fsanitize=fuzzer -DEM_FUZZER (and parse.c, dir.c) this is a libFuzzer target:
 *   extmem run --dram 2M -- ./fuzz_server
 * otherwise a plain program: fuzz_server [COUNT [SEED]].
 */
#define _GNU_SOURCE
#include "control/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define MUST(cond)                                                                                 \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s fails: %s\n", #cond, strerror(errno));                 \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

enum { BYTES = 4 << 20, ANSWER = 1 << 20, LOOK_EVERY = 64 };

static uint64_t *memory;
static char answer[ANSWER];
static struct sockaddr_un server;

/* ---- the program's memory ------------------------------------------------------------- */

static void check_memory(void)
{
	for (size_t i = 0; i < BYTES / 8; i++)
		MUST(memory[i] == i * 0x9e3779b97f4a7c15u);
}

static void start(void)
{
	char dir[EM_CONTROL_DIRS][EM_CONTROL_PATH];
	unsigned n = em_control_dirs(geteuid(), getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), dir);

	server.sun_family = AF_UNIX;
	for (unsigned i = 0; i < n; i++) {
		snprintf(server.sun_path, sizeof(server.sun_path), "%.90s/%d", dir[i], getpid());
		if (!access(server.sun_path, F_OK))
			break;
	}
	memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	MUST(memory != MAP_FAILED);
	for (size_t i = 0; i < BYTES / 8; i++)
		memory[i] = i * 0x9e3779b97f4a7c15u;
}

/* ---- one connection ---------------------------------------------------------------------- */

static int connected(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	MUST(fd >= 0 && !connect(fd, (struct sockaddr *)&server, sizeof(server)));
	return fd;
}

/* In pieces of the lengths that the input's last bytes give.  The server may have heard enough before. */
static void send_in_pieces(int fd, const uint8_t *p, size_t n, uint8_t piece)
{
	size_t step = piece % 4 ? n + 1 : 1 + piece * 4u;

	for (size_t some; n; p += some, n -= some) {
		some = n < step ? n : step;
		if (send(fd, p, some, MSG_NOSIGNAL) != (ssize_t)some)
			return;
	}
}

static size_t receive(int fd)
{
	size_t n = 0;
	ssize_t got;

	while ((got = recv(fd, answer + n, sizeof(answer) - 1 - n, 0)) > 0)
		n += (size_t)got;
	MUST(got == 0 || errno == ECONNRESET || errno == EPIPE);
	answer[n] = 0;
	return n;
}

static void check_ok(size_t n)
{
	char *body;
	unsigned long bytes = strtoul(answer + 3, &body, 10);

	MUST(*body == '\n' && n == (size_t)(body + 1 - answer) + bytes);
}

static void check_error(size_t n, const char *why)
{
	MUST(!strncmp(answer, "error ", 6) && answer[n - 1] == '\n');
	for (size_t i = 0; i + 1 < n; i++)
		MUST(answer[i] >= ' ' && answer[i] <= '~');
	MUST(!why || (strlen(why) + 7 == n && !memcmp(answer + 6, why, n - 7)));
}

/* What the server must say to these bytes; unread: some of them come after the line, which may cost the answer. */
static void check_answer(const uint8_t *p, size_t len, size_t n)
{
	size_t most = len < EM_CONTROL_LINE ? len : EM_CONTROL_LINE;
	const uint8_t *end = memchr(p, '\n', most);
	struct em_control_request r;
	const char *why = NULL;

	if (!n) {
		MUST(!end || p + len > end + 1);
		return;
	}
	MUST(end || len >= EM_CONTROL_LINE);
	if (!end)
		check_error(n, "request too long");
	else if (em_control_parse((const char *)p, (size_t)(end - p), &r, &why))
		check_error(n, why);
	else if (!strncmp(answer, "ok ", 3))
		check_ok(n);
	else
		check_error(n, NULL);
}

static void ask(const uint8_t *data, size_t len, uint8_t piece, bool leave)
{
	int fd = connected();

	send_in_pieces(fd, data, len, piece);
	shutdown(fd, SHUT_WR);
	if (!leave)
		check_answer(data, len, receive(fd));
	close(fd);
}

/* The last byte says how: in pieces, or gone before the answer; two at once. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char stats[] = "extmem 1 stats\n";
	static unsigned long turns;
	uint8_t how = len ? data[--len] : 0;
	int waiting = -1;

	if (!memory)
		start();
	if (how & 64)
		waiting = connected();
	if (waiting >= 0)
		send_in_pieces(waiting, (const uint8_t *)stats, sizeof(stats) - 1, 1);
	ask(data, len, how & 31, how & 32);
	if (waiting >= 0) {
		check_answer((const uint8_t *)stats, sizeof(stats) - 1, receive(waiting));
		MUST(!strncmp(answer, "ok ", 3));
		close(waiting);
	}
	if (++turns % LOOK_EVERY == 0)
		check_memory();
	return 0;
}

#ifndef EM_FUZZER

static uint64_t rng;

static uint64_t random_next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static size_t put(uint8_t *out, size_t n, size_t max, const char *w)
{
	size_t len = strlen(w);

	if (n + len > max)
		return n;
	memcpy(out + n, w, len);
	return n + len;
}

/* Half of them a good request, with a byte changed here and there. */
static size_t random_request(uint8_t *out, size_t max)
{
	static const char *const good[] = {
		"extmem 1 budget 1500000\n", "extmem 1 budget 3000000\n", "extmem 1 budget 1\n",
		"extmem 1 budget 18446744073709551615\n", "extmem 1 policy fifo\n",
		"extmem 1 policy 2q,in=60\n", "extmem 1 policy nothing\n", "extmem 1 policy 2q,x=1\n",
		"extmem 1 evict all\n", "extmem 1 load all\n", "extmem 1 stats\n", "extmem 2 stats\n",
	};
	static const char *const words[] = {
		"extmem", "1", " ", " ", "budget", "policy", "evict", "stats", "all", "2q", "\n", ",", "=",
		"99999", "\xff", "0123456789012345678901234567890123456789",
	};
	size_t n = 0;

	if (random_next() % 2) {
		n = put(out, 0, max, good[random_next() % (sizeof(good) / sizeof(good[0]))]);
	} else {
		for (size_t left = random_next() % 64; left--;)
			n = put(out, n, max, words[random_next() % (sizeof(words) / sizeof(words[0]))]);
	}
	if (n && random_next() % 4 == 0)
		out[random_next() % n] = (uint8_t)random_next();
	if (n < max)
		out[n++] = (uint8_t)random_next();
	return n;
}

int main(int argc, char **argv)
{
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 0) : 2000;
	unsigned long seed = argc > 2 ? strtoul(argv[2], NULL, 0) : 1;
	static uint8_t buf[4096];

	printf("%lu inputs, seed %lu\n", count, seed);
	fflush(stdout);
	rng = seed * 0x9e3779b97f4a7c15ull + 1;
	for (unsigned long i = 0; i < count; i++)
		LLVMFuzzerTestOneInput(buf, random_request(buf, sizeof(buf)));
	ask((const uint8_t *)"extmem 1 stats\n", 15, 1, false);
	MUST(!strncmp(answer, "ok ", 3));
	check_memory();
	return 0;
}

#endif
