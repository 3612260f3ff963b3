/* SPDX-License-Identifier: MIT */
/*
 * A client that loads redis-server and then reads and writes with a zipfian choice of keys.
 * Every value that is read is compared with the one last written.  At the end the server is
 * told to shut down without saving.
 *
 * Each connection has a thread and keys of its own: no locks, and each knows what it wrote.
 * A value is incompressible and follows from key and version.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "histogram.h"
#include "util.h"
#include "zipf.h"

#define KEY_BYTES 16u
#define PIPELINE_MAX 1024u
#define LOAD_BATCH 64u
#define REPLY_ROOM 64u
#define CONNECT_TRIES 600u /* of 50 ms */

static struct {
	const char *socket;
	uint64_t keys, seed;
	unsigned value_bytes, connections, pipeline, set_percent;
	double seconds, warmup;
	struct zipf zipf; /* over the keys of one connection */
	int phase;	  /* atomic */
} r = {.keys = 100000, .seed = 1, .value_bytes = 1024, .connections = 4, .pipeline = 1,
       .set_percent = 20, .seconds = 5, .warmup = 2};

enum phase { WARM, MEASURE, STOP };

struct request {
	uint64_t key;
	bool set;
};

struct connection {
	int fd;
	unsigned number;
	uint64_t random, keys;
	uint8_t *version; /* of each of its keys */
	char *out, *in;
	size_t out_used, in_used, in_at;
	char *value;	  /* what is expected */
	uint64_t requests, errors;
	struct histogram latency;
};

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timespec pause = {0, 50000000};

	if (strlen(path) >= sizeof(address.sun_path))
		wl_die("--socket: the path is too long");
	memcpy(address.sun_path, path, strlen(path));
	for (unsigned i = 0; i < CONNECT_TRIES; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0)
			wl_die("no socket: %s", strerror(errno));
		if (!connect(fd, (struct sockaddr *)&address, sizeof(address)))
			return fd;
		close(fd);
		nanosleep(&pause, NULL);
	}
	wl_die("nobody listens on %s", path);
}

static void send_all(struct connection *c)
{
	for (size_t at = 0; at < c->out_used;) {
		ssize_t n = send(c->fd, c->out + at, c->out_used - at, MSG_NOSIGNAL);

		if (n <= 0)
			wl_die("the server does not take requests: %s", strerror(errno));
		at += (size_t)n;
	}
	c->out_used = 0;
}

static size_t batch_room(void)
{
	unsigned most = r.pipeline > LOAD_BATCH ? r.pipeline : LOAD_BATCH;

	return most * (size_t)(r.value_bytes + REPLY_ROOM + KEY_BYTES);
}

/* At least so many bytes of replies lie at in + in_at. */
static void receive(struct connection *c, size_t bytes)
{
	if (c->in_at == c->in_used)
		c->in_at = c->in_used = 0;
	if (c->in_at && c->in_at + bytes > batch_room()) {
		memmove(c->in, c->in + c->in_at, c->in_used - c->in_at);
		c->in_used -= c->in_at;
		c->in_at = 0;
	}
	while (c->in_used - c->in_at < bytes) {
		ssize_t n = recv(c->fd, c->in + c->in_used, batch_room() - c->in_used, 0);

		if (n <= 0)
			wl_die("the server closed the connection");
		c->in_used += (size_t)n;
	}
}

/* One line, without its end; NUL-terminated in place. */
static const char *receive_line(struct connection *c)
{
	size_t length = 0;
	char *line;

	for (;; length++) {
		receive(c, length + 2);
		line = c->in + c->in_at;
		if (line[length] == '\r' && line[length + 1] == '\n')
			break;
		if (length > REPLY_ROOM)
			wl_die("the server answers with nonsense");
	}
	line[length] = '\0';
	c->in_at += length + 2;
	return line;
}

static void make_value(const struct connection *c, uint64_t key, uint8_t version, char *value)
{
	uint64_t start = ((key * r.connections + c->number) * 256 + version) * 0x9e3779b97f4a7c15u;

	for (unsigned i = 0; i < r.value_bytes; i += sizeof(uint64_t)) {
		uint64_t word = wl_mix64(start + i);
		size_t left = r.value_bytes - i;

		memcpy(value + i, &word, left < sizeof(word) ? left : sizeof(word));
	}
}

static void put_text(struct connection *c, const char *text)
{
	size_t length = strlen(text);

	memcpy(c->out + c->out_used, text, length);
	c->out_used += length;
}

static void put_request(struct connection *c, const struct request *q)
{
	char key[KEY_BYTES + 1], head[64];

	snprintf(key, sizeof(key), "k%03u:%011llu", c->number % 1000, (unsigned long long)q->key);
	snprintf(head, sizeof(head), "*%d\r\n$3\r\n%s\r\n$%zu\r\n", q->set ? 3 : 2,
		 q->set ? "SET" : "GET", strlen(key));
	put_text(c, head);
	put_text(c, key);
	put_text(c, "\r\n");
	if (!q->set)
		return;
	snprintf(head, sizeof(head), "$%u\r\n", r.value_bytes);
	put_text(c, head);
	make_value(c, q->key, ++c->version[q->key], c->out + c->out_used);
	c->out_used += r.value_bytes;
	put_text(c, "\r\n");
}

static void wrong(struct connection *c, uint64_t key, const char *line)
{
	if (c->errors++ < 8)
		fprintf(stderr, "redisload: key %llu of connection %u: not what was written: %.40s\n",
			(unsigned long long)key, c->number, line);
}

static void take_reply(struct connection *c, const struct request *q, uint8_t version)
{
	const char *line = receive_line(c);
	size_t length;

	if (q->set) {
		if (strcmp(line, "+OK"))
			wrong(c, q->key, line);
		return;
	}
	length = line[0] == '$' ? strtoul(line + 1, NULL, 10) : 0;
	if (length != r.value_bytes) {
		wrong(c, q->key, line);
		wl_die("the server does not have a value of that length");
	}
	receive(c, length + 2);
	make_value(c, q->key, version, c->value);
	if (memcmp(c->value, c->in + c->in_at, length))
		wrong(c, q->key, "another value");
	c->in_at += length + 2;
}

/* A request's time ends with its own reply. */
static void exchange(struct connection *c, const struct request *q, unsigned n)
{
	uint8_t version[PIPELINE_MAX]; /* as a GET will see it: SETs behind it in the batch count on */
	uint64_t t0;

	for (unsigned i = 0; i < n; i++) {
		put_request(c, &q[i]);
		version[i] = c->version[q[i].key];
	}
	t0 = wl_now_ns();
	send_all(c);
	for (unsigned i = 0; i < n; i++) {
		take_reply(c, &q[i], version[i]);
		histogram_add(&c->latency, wl_now_ns() - t0);
	}
	__atomic_store_n(&c->requests, c->requests + n, __ATOMIC_RELAXED);
}

static uint64_t next_random(struct connection *c)
{
	c->random += 0x9e3779b97f4a7c15u;
	return wl_mix64(c->random);
}

/* Popular keys are not neighbours: they were not loaded one after the other. */
static struct request choose(struct connection *c)
{
	uint64_t random = next_random(c);
	uint64_t rank = zipf_rank(&r.zipf, (double)(random >> 11) * 0x1p-53);

	return (struct request){.key = rank * 7368787u % c->keys,
				.set = next_random(c) % 100 < r.set_percent};
}

static void *load(void *arg)
{
	struct connection *c = arg;
	struct request batch[LOAD_BATCH];

	for (uint64_t key = 0; key < c->keys;) {
		unsigned n = 0;

		for (; n < LOAD_BATCH && key < c->keys; n++, key++)
			batch[n] = (struct request){.key = key, .set = true};
		exchange(c, batch, n);
	}
	return NULL;
}

static void *work(void *arg)
{
	struct connection *c = arg;
	struct request batch[PIPELINE_MAX];
	int phase, before = WARM;

	while ((phase = __atomic_load_n(&r.phase, __ATOMIC_RELAXED)) != STOP) {
		if (phase != before) {
			memset(&c->latency, 0, sizeof(c->latency));
			__atomic_store_n(&c->requests, 0, __ATOMIC_RELAXED);
			before = phase;
		}
		for (unsigned i = 0; i < r.pipeline; i++)
			batch[i] = choose(c);
		exchange(c, batch, r.pipeline);
	}
	return NULL;
}

static void sleep_s(double s)
{
	struct timespec ts = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};

	while (nanosleep(&ts, &ts))
		;
}

/* Returns the seconds from the start to the end; between them `meanwhile` runs, if given. */
static double in_parallel(struct connection *all, void *(*body)(void *), double (*meanwhile)(void))
{
	pthread_t *threads = wl_alloc(r.connections * sizeof(*threads));
	uint64_t t0 = wl_now_ns();
	double seconds = 0;

	for (unsigned i = 0; i < r.connections; i++) {
		int err = pthread_create(&threads[i], NULL, body, &all[i]);

		if (err)
			wl_die("cannot start a thread: %s", strerror(err));
	}
	if (meanwhile)
		seconds = meanwhile();
	for (unsigned i = 0; i < r.connections; i++)
		pthread_join(threads[i], NULL);
	free(threads);
	return meanwhile ? seconds : (double)(wl_now_ns() - t0) / 1e9;
}

static double direct(void)
{
	uint64_t t0;

	sleep_s(r.warmup);
	t0 = wl_now_ns();
	__atomic_store_n(&r.phase, MEASURE, __ATOMIC_RELAXED);
	sleep_s(r.seconds);
	__atomic_store_n(&r.phase, STOP, __ATOMIC_RELAXED);
	return (double)(wl_now_ns() - t0) / 1e9;
}

static struct connection *open_all(void)
{
	struct connection *all = wl_alloc(r.connections * sizeof(*all));

	memset(all, 0, r.connections * sizeof(*all));
	for (unsigned i = 0; i < r.connections; i++) {
		struct connection *c = &all[i];

		c->fd = connect_to(r.socket);
		c->number = i;
		c->random = wl_mix64(r.seed * 1024 + i + 1);
		c->keys = r.keys / r.connections;
		c->version = wl_alloc(c->keys);
		memset(c->version, 0, c->keys);
		c->out = wl_alloc(batch_room() + LOAD_BATCH * REPLY_ROOM + r.pipeline * REPLY_ROOM);
		c->in = wl_alloc(batch_room());
		c->value = wl_alloc(r.value_bytes);
	}
	return all;
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{"socket", required_argument, NULL, 'S'},   {"keys", required_argument, NULL, 'k'},
		{"value", required_argument, NULL, 'v'},    {"connections", required_argument, NULL, 'c'},
		{"pipeline", required_argument, NULL, 'p'}, {"sets", required_argument, NULL, 'w'},
		{"seconds", required_argument, NULL, 's'},  {"warmup", required_argument, NULL, 'W'},
		{"help", no_argument, NULL, 'h'},	    {NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'S': r.socket = optarg; break;
		case 'k': r.keys = wl_parse_size("keys", optarg); break;
		case 'v': r.value_bytes = (unsigned)wl_parse_size("value", optarg); break;
		case 'c': r.connections = (unsigned)wl_parse_size("connections", optarg); break;
		case 'p': r.pipeline = (unsigned)wl_parse_size("pipeline", optarg); break;
		case 'w': r.set_percent = (unsigned)wl_parse_size("sets", optarg); break;
		case 's': r.seconds = wl_parse_seconds("seconds", optarg); break;
		case 'W': r.warmup = wl_parse_seconds("warmup", optarg); break;
		case 'h':
			printf("usage: %s --socket PATH [--keys N] [--value BYTES] [--connections N]\n"
			       "	[--pipeline N] [--sets PERCENT] [--seconds S] [--warmup S]\n",
			       argv[0]);
			exit(0);
		default: exit(2);
		}
	}
	if (!r.socket || optind < argc)
		wl_die("--socket PATH is needed; see --help");
	if (!r.value_bytes || r.value_bytes > 1u << 20 || r.set_percent > 100)
		wl_die("--value: up to 1M bytes; --sets: up to 100 percent");
	if (!r.pipeline || r.pipeline > PIPELINE_MAX || !r.connections || r.connections > 1000)
		wl_die("--pipeline: from 1 to %u; --connections: from 1 to 1000", PIPELINE_MAX);
	if (r.keys / r.connections < 2)
		wl_die("--keys: at least two for each connection");
}

static int report(struct connection *all, double load_s, double seconds)
{
	struct histogram *latency = &all[0].latency;
	uint64_t requests = 0, errors = 0;

	for (unsigned i = 0; i < r.connections; i++) {
		if (i)
			histogram_merge(latency, &all[i].latency);
		requests += all[i].requests;
		errors += all[i].errors;
	}
	printf("{\"workload\": \"redis\", \"keys\": %llu, \"value\": %u, \"connections\": %u, "
	       "\"pipeline\": %u, \"set_percent\": %u, \"load_s\": %.3f, \"seconds\": %.3f, "
	       "\"requests_per_s\": %.1f, \"p50_ns\": %llu, \"p99_ns\": %llu, \"p999_ns\": %llu, "
	       "\"errors\": %llu}\n",
	       (unsigned long long)r.keys, r.value_bytes, r.connections, r.pipeline, r.set_percent,
	       load_s, seconds, (double)requests / seconds,
	       (unsigned long long)histogram_percentile(latency, 50),
	       (unsigned long long)histogram_percentile(latency, 99),
	       (unsigned long long)histogram_percentile(latency, 99.9), (unsigned long long)errors);
	return errors || fflush(stdout) ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const char shutdown_command[] = "*2\r\n$8\r\nSHUTDOWN\r\n$6\r\nNOSAVE\r\n";
	struct connection *all;
	double load_s, seconds;
	int status;

	parse(argc, argv);
	zipf_init(&r.zipf, r.keys / r.connections, 0.99);
	all = open_all();
	load_s = in_parallel(all, load, NULL);
	seconds = in_parallel(all, work, direct);
	status = report(all, load_s, seconds);
	put_text(&all[0], shutdown_command);
	send_all(&all[0]);
	return status;
}
