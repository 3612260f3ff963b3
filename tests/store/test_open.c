/* SPDX-License-Identifier: MIT */
/* What opens, what is refused, and what is said then. */
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common.h"

static char dir[64], path[128], err[512];

static struct em_store_config config(const char *p)
{
	return (struct em_store_config){.path = p};
}

/* Both ways of asking must give the same answer; 0 or -errno. */
static int ask(const struct em_store_config *cfg)
{
	struct em_store *st;
	int c, o;

	err[0] = 0;
	c = em_store_check(cfg, err, sizeof(err));
	if (c)
		assert_true(err[0] && !strchr(err, '\n'));
	o = em_store_open(cfg, 500, &st, err, sizeof(err));
	if (!o)
		em_store_close(st);
	assert_int_equal(c, o);
	return o;
}

static void said(const char *part)
{
	if (!strstr(err, part))
		fail_msg("\"%s\" is not in \"%s\"", part, err);
	if (getenv("SHOW"))
		print_message("  %s\n", err);
}

static const char *in_dir(const char *name)
{
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void write_file(const char *p, off_t at, const char *text, size_t len)
{
	int fd = open(p, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, text, len, at), len);
	close(fd);
}

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "%s/extmem-test-XXXXXX", V.dir);
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char cmd[100];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	return system(cmd);
}

static void directory(void **state)
{
	struct em_store_config cfg = config(dir);
	struct em_store *st;
	struct stat sb;

	(void)state;
	assert_int_equal(em_store_check(&cfg, err, sizeof(err)), 0);
	assert_int_equal(em_store_open(&cfg, 500, &st, err, sizeof(err)), 0);
	assert_int_equal(fstat(st->fd, &sb), 0);
	assert_int_equal(sb.st_nlink, 0);
	assert_int_equal(sb.st_mode & 0777, 0600);
	/* tmpfs has had O_DIRECT since 6.6 */
	if (!strcmp(V.dir, "/var/tmp"))
		assert_true(st->direct);
	print_message("%s: %s\n", V.dir, st->direct ? "O_DIRECT" : "buffered");
	em_store_close(st);
}

static void default_directory(void **state)
{
	struct em_store_config cfg = config(NULL);
	struct em_store *st;
	struct stat sb, want;

	(void)state;
	setenv("TMPDIR", dir, 1);
	assert_int_equal(em_store_open(&cfg, 500, &st, err, sizeof(err)), 0);
	fstat(st->fd, &sb);
	stat(dir, &want);
	assert_int_equal(sb.st_dev, want.st_dev);
	em_store_close(st);
	setenv("TMPDIR", "/nonexistent", 1);
	assert_int_equal(ask(&cfg), 0);
	unsetenv("TMPDIR");
	assert_int_equal(ask(&cfg), 0);
	cfg.path = "";
	assert_int_equal(ask(&cfg), 0);
}

static void named_file(void **state)
{
	struct em_store_config cfg = config(in_dir("swap"));
	struct em_store *st, *second;
	em_slot_t first;
	uint64_t *p = pages_new(1);
	struct stat sb;

	(void)state;
	assert_int_equal(em_store_check(&cfg, err, sizeof(err)), 0);
	assert_int_equal(access(path, F_OK), -1); /* checking leaves nothing behind */
	assert_int_equal(em_store_open(&cfg, 500, &st, err, sizeof(err)), 0);
	assert_int_equal(stat(path, &sb), 0);
	assert_int_equal(sb.st_mode & 0777, 0600);
	assert_int_equal(em_slots_alloc(st, 1, &first), 1);
	assert_int_equal(em_store_writev(st, first, &(struct iovec){p, 4096}, 1), 0);
	assert_int_equal(em_store_open(&cfg, 500, &second, err, sizeof(err)), -EBUSY);
	said("in use by another extmem");
	assert_int_equal(em_store_check(&cfg, err, sizeof(err)), -EBUSY);
	em_store_close(st);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(ask(&cfg), 0); /* again: it is ours */
}

/* The first user was killed with a ring open: the file is let go a little later. */
static void named_file_of_a_killed_user(void **state)
{
	struct em_store_config cfg = config(in_dir("killed"));
	int ready[2];
	pid_t pid;
	char c;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		struct em_store *st;
		struct em_ioq *q;

		if (em_store_open(&cfg, 500, &st, err, sizeof(err)) ||
		    em_ioq_create(st, 8, 500, &q) || write(ready[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	kill_child(pid);
	assert_int_equal(ask(&cfg), 0);
}

static void precious_file(void **state)
{
	struct em_store_config cfg = config(in_dir("thesis"));
	char buf[8] = "";
	int fd;

	(void)state;
	write_file(path, 0, "precious", 8);
	assert_int_equal(ask(&cfg), -EEXIST);
	said("not empty");
	said(",force");
	fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, buf, 8), 8);
	assert_memory_equal(buf, "precious", 8);
	close(fd);
	cfg.force = true;
	assert_int_equal(ask(&cfg), 0);
	/* many zeros first, as in images */
	cfg = config(in_dir("image.iso"));
	write_file(path, 32769, "CD001", 5);
	assert_int_equal(ask(&cfg), -EEXIST);
	said("ISO 9660");
	cfg = config(in_dir("mkswap"));
	write_file(path, 4086, "SWAPSPACE2", 10);
	assert_int_equal(ask(&cfg), -EEXIST);
	said("Linux swap");
	/* made ready by dd or fallocate */
	cfg = config(in_dir("zeros"));
	write_file(path, 4 << 20, "", 1);
	assert_int_equal(ask(&cfg), 0);
}

static void readable_file_becomes_private(void **state)
{
	struct em_store_config cfg = config(in_dir("open-to-all"));
	struct stat sb;

	(void)state;
	write_file(path, 0, "", 0);
	chmod(path, 0644);
	assert_int_equal(ask(&cfg), 0);
	stat(path, &sb);
	assert_int_equal(sb.st_mode & 0777, 0600);
}

static void wrong_kinds(void **state)
{
	struct em_store_config cfg = config("/dev/null");
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)state;
	assert_int_equal(ask(&cfg), -EINVAL);
	said("a character device");
	cfg = config(in_dir("fifo"));
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(ask(&cfg), -EINVAL);
	said("a FIFO");
	cfg = config(in_dir("socket"));
	strcpy(sun.sun_path, path);
	assert_int_equal(bind(s, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(ask(&cfg), -EINVAL);
	said("a socket");
	close(s);
	cfg = config("/nonexistent/dir/swap");
	assert_int_equal(ask(&cfg), -ENOENT);
	said("cannot be created");
	cfg = config("/nonexistent/dir/");
	assert_int_equal(ask(&cfg), -ENOENT);
	cfg = config(in_dir("thesis/below"));
	assert_int_equal(ask(&cfg), -ENOTDIR);
	cfg = config("/proc");
	assert_true(ask(&cfg) < 0);
	said("no file can be created there");
	cfg = config("/proc/version");
	assert_true(ask(&cfg) < 0);
	cfg = config(dir);
	cfg.size_bytes = 4096;
	assert_int_equal(ask(&cfg), -EINVAL);
	said("too small");
}

/* As another user, because root may write everywhere. */
static void not_writable(void **state)
{
	struct em_store_config cfg = config(in_dir("readonly"));
	int status;
	pid_t pid;

	(void)state;
	write_file(path, 0, "", 0);
	chmod(path, 0444);
	chmod(dir, 0755);
	pid = fork();
	if (!pid) {
		if (getuid() == 0 && setuid(65534))
			_exit(1);
		if (em_store_check(&cfg, err, sizeof(err)) != -EACCES ||
		    !strstr(err, "not writable: Permission denied; choose another"))
			_exit(2);
		cfg = config(dir);
		if (getuid() == 65534 && em_store_check(&cfg, err, sizeof(err)) != -EACCES)
			_exit(3);
		cfg = config(in_dir("new"));
		if (getuid() == 65534 && em_store_check(&cfg, err, sizeof(err)) != -EACCES)
			_exit(4);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

/* A device of `bytes` over a file in dir; -1 if there are none here. */
static int loop_device(uint64_t bytes, char *dev, size_t len, int *hold)
{
	int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC), n, file, fd;

	if (ctl < 0)
		return -1;
	n = ioctl(ctl, LOOP_CTL_GET_FREE);
	close(ctl);
	snprintf(dev, len, "/dev/loop%d", n);
	fd = open(dev, O_RDWR | O_CLOEXEC);
	file = open(in_dir("backing"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || file < 0 || ftruncate(file, (off_t)bytes) || ioctl(fd, LOOP_SET_FD, file))
		return -1;
	close(file);
	*hold = fd;
	return 0;
}

static void device_round_trip(const struct em_store_config *cfg, uint64_t bytes)
{
	uint64_t *w = pages_new(64), *r = pages_new(64);
	struct em_store *st;
	em_slot_t first;
	uint32_t n, total = 0;

	assert_int_equal(em_store_open(cfg, 500, &st, err, sizeof(err)), 0);
	assert_int_equal(em_slots_limit(st), bytes / 4096 - 1);
	assert_int_equal(em_slots_alloc(st, 64, &first), 64);
	pages_fill(w, 64, 5);
	assert_int_equal(em_store_writev(st, first, &(struct iovec){w, 64 * 4096}, 1), 0);
	assert_int_equal(em_store_read(st, first, r, 64), 0);
	assert_true(pages_are(r, 64, 5));
	while ((n = em_slots_alloc(st, 1024, &first)))
		total += n;
	assert_int_equal(total + 64, bytes / 4096 - 1);
	em_store_close(st);
}

static void block_device(void **state)
{
	const uint64_t bytes = 24 << 20;
	struct em_store_config cfg;
	char dev[32], cmd[128];
	int hold = -1, other;

	(void)state;
	if (loop_device(bytes, dev, sizeof(dev), &hold))
		skip();
	cfg = config(dev);
	assert_int_equal(ask(&cfg), 0);
	device_round_trip(&cfg, bytes);
	other = open(dev, O_RDONLY | O_EXCL | O_CLOEXEC);
	assert_int_equal(ask(&cfg), -EBUSY);
	said("in use");
	close(other);
	/* garbage without a signature is nobody's */
	write_file(dev, 0, "left over from something", 24);
	assert_int_equal(ask(&cfg), 0);
	snprintf(cmd, sizeof(cmd), "mkfs.ext4 -q -F %s >/dev/null 2>&1", dev);
	if (!system(cmd)) {
		assert_int_equal(ask(&cfg), -EEXIST);
		said("ext2/3/4 file system");
		cfg.force = true;
		assert_int_equal(ask(&cfg), 0);
		cfg.force = false;
		assert_int_equal(ask(&cfg), 0); /* ours now */
	}
	/* our mark may survive what is put there later */
	snprintf(cmd, sizeof(cmd), "mkswap %s >/dev/null 2>&1", dev);
	if (!system(cmd)) {
		write_file(dev, 0, EM_STORE_MAGIC, EM_STORE_MAGIC_LEN);
		assert_int_equal(ask(&cfg), -EEXIST);
		said("swap");
	}
	ioctl(hold, LOOP_CLR_FD, 0);
	close(hold);
}

static void signatures_are_known(void **state)
{
	static const struct {
		off_t at;
		const char *text;
		size_t len;
		const char *name;
	} sig[] = {
		{0, "XFSB", 4, "xfs"},	  {0, "LUKS\xba\xbe", 6, "LUKS"},
		{512, "LABELONE", 8, "LVM"}, {4096, "\xfc\x4e\x2b\xa9", 4, "RAID"},
		{512, "EFI PART", 8, "GPT"}, {510, "\x55\xaa", 2, "MBR"},
		{65600, "_BHRfS_M", 8, "btrfs"}, {1080, "\x53\xef", 2, "ext2/3/4"},
		{82, "FAT32", 5, "vfat"}, {(4 << 20) - 8192, "\xfc\x4e\x2b\xa9", 4, "RAID"},
		{(4 << 20) - 65536, "\xfc\x4e\x2b\xa9", 4, "RAID"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(sig) / sizeof(sig[0]); i++) {
		struct em_store_config cfg = config(in_dir("signature"));

		write_file(path, sig[i].at, sig[i].text, sig[i].len);
		assert_int_equal(truncate(path, 4 << 20), 0);
		assert_int_equal(ask(&cfg), -EEXIST);
		said(sig[i].name);
		unlink(path);
	}
}

static int group(const char *name)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(directory),
		cmocka_unit_test(default_directory),
		cmocka_unit_test(named_file),
		cmocka_unit_test(named_file_of_a_killed_user),
		cmocka_unit_test(precious_file),
		cmocka_unit_test(readable_file_becomes_private),
		cmocka_unit_test(wrong_kinds),
		cmocka_unit_test(not_writable),
		cmocka_unit_test(block_device),
		cmocka_unit_test(signatures_are_known),
	};

	return cmocka_run_group_tests_name(name, tests, make_dir, remove_dir);
}

int main(void)
{
	return run_variants(group, false);
}
