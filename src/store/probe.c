/* SPDX-License-Identifier: MIT */
/*
 * What is on a file or device already?  Whoever names the wrong one must not lose it.
 * Ordinary context.  Knows the usual signatures itself, and asks libblkid for the unusual ones
 * where it is installed; loaded when needed only, because it must not become a
 * dependency of every program that runs with the preload library.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

#define HEAD_BYTES (1u << 20)

static const struct signature {
	uint32_t off, len;
	const char *bytes, *name;
} signatures[] = {
	{0, 4, "XFSB", "xfs file system"},
	{0, 6, "LUKS\xba\xbe", "LUKS encrypted volume"},
	{0, 6, "SKUL\xba\xbe", "LUKS encrypted volume"},
	{0, 4, "hsqs", "squashfs file system"},
	{0, 4, "\xfc\x4e\x2b\xa9", "RAID member"},
	{4096, 4, "\xfc\x4e\x2b\xa9", "RAID member"},
	{3, 8, "EXFAT   ", "exfat file system"},
	{3, 8, "NTFS    ", "ntfs file system"},
	{54, 5, "FAT12", "vfat file system"},
	{54, 5, "FAT16", "vfat file system"},
	{82, 5, "FAT32", "vfat file system"},
	{512, 8, "EFI PART", "GPT partition table"},
	{4096, 8, "EFI PART", "GPT partition table"},
	{0, 8, "LABELONE", "LVM physical volume"},
	{512, 8, "LABELONE", "LVM physical volume"},
	{1024, 8, "LABELONE", "LVM physical volume"},
	{1536, 8, "LABELONE", "LVM physical volume"},
	{1024, 4, "\x10\x20\xf5\xf2", "f2fs file system"},
	{1080, 2, "\x53\xef", "ext2/3/4 file system"},
	{4086, 10, "SWAPSPACE2", "Linux swap area"},
	{4086, 10, "SWAP-SPACE", "Linux swap area"},
	{32769, 5, "CD001", "ISO 9660 file system"},
	{65600, 8, "_BHRfS_M", "btrfs file system"},
	/* last: a vfat file system has it too */
	{510, 2, "\x55\xaa", "MBR partition table or boot sector"},
};

static size_t read_head(int fd, char *buf, size_t len)
{
	size_t n = 0;
	ssize_t r;

	while (n < len && (r = pread(fd, buf + n, len - n, (off_t)n)) > 0)
		n += (size_t)r;
	return n;
}

static const char *known_signature(const char *head, size_t len)
{
	for (size_t i = 0; i < sizeof(signatures) / sizeof(signatures[0]); i++) {
		const struct signature *s = &signatures[i];

		if (s->off + s->len <= len && !memcmp(head + s->off, s->bytes, s->len))
			return s->name;
	}
	return NULL;
}

/* Old RAID superblocks stand at the end: version 1.0 8 KiB before it, 0.90 in the last
   whole 64 KiB. */
static bool raid_at_end(int fd, uint64_t size)
{
	const uint64_t at[] = {(size - 8192) & ~4095ull, (size & ~65535ull) - 65536};
	char magic[4];

	if (size < 1u << 17)
		return false;
	for (size_t i = 0; i < 2; i++)
		if (pread(fd, magic, 4, (off_t)at[i]) == 4 && !memcmp(magic, "\xfc\x4e\x2b\xa9", 4))
			return true;
	return false;
}

struct blkid {
	void *(*new_probe)(void);
	void (*free_probe)(void *);
	int (*set_device)(void *, int, int64_t, int64_t);
	int (*enable_partitions)(void *, int);
	int (*safeprobe)(void *);
	int (*lookup)(void *, const char *, const char **, size_t *);
};

static bool blkid_load(void *lib, struct blkid *b)
{
	*(void **)&b->new_probe = dlsym(lib, "blkid_new_probe");
	*(void **)&b->free_probe = dlsym(lib, "blkid_free_probe");
	*(void **)&b->set_device = dlsym(lib, "blkid_probe_set_device");
	*(void **)&b->enable_partitions = dlsym(lib, "blkid_probe_enable_partitions");
	*(void **)&b->safeprobe = dlsym(lib, "blkid_do_safeprobe");
	*(void **)&b->lookup = dlsym(lib, "blkid_probe_lookup_value");
	return b->new_probe && b->free_probe && b->set_device && b->enable_partitions &&
	       b->safeprobe && b->lookup;
}

static const char *blkid_signature(int fd, char *buf, size_t buf_len)
{
	void *lib = dlopen("libblkid.so.1", RTLD_NOW | RTLD_LOCAL), *pr;
	const char *type = NULL;
	struct blkid b;
	int r;

	if (!lib)
		return NULL;
	pr = blkid_load(lib, &b) ? b.new_probe() : NULL;
	if (pr && !b.set_device(pr, fd, 0, 0)) {
		b.enable_partitions(pr, 1);
		r = b.safeprobe(pr);
		if (r == -2) {
			type = "several signatures";
		} else if (r == 0 && (!b.lookup(pr, "TYPE", &type, NULL) ||
				      !b.lookup(pr, "PTTYPE", &type, NULL))) {
			snprintf(buf, buf_len, "%s signature", type);
			type = buf;
		}
	}
	if (pr)
		b.free_probe(pr);
	dlclose(lib);
	return type;
}

static bool all_zero(const char *p, size_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

const char *em_probe_content(int fd, uint64_t size, char *buf, size_t buf_len, bool *ours)
{
	char *head = malloc(HEAD_BYTES);
	const char *found = NULL;
	size_t n;

	*ours = false;
	if (!head)
		return "content that could not be read";
	n = read_head(fd, head, HEAD_BYTES);
	if (n < size && n < HEAD_BYTES)
		found = "content that could not be read";
	else
		found = known_signature(head, n);
	if (!found && raid_at_end(fd, size))
		found = "RAID member";
	/* Slot 0 exactly as we left it: nobody has used the place for something else since.  What
	   is known to stand elsewhere has been looked for before; slots may look like anything. */
	if (!found && n >= EM_SLOT_SIZE && !memcmp(head, EM_STORE_MAGIC, EM_STORE_MAGIC_LEN) &&
	    all_zero(head + EM_STORE_MAGIC_LEN, EM_SLOT_SIZE - EM_STORE_MAGIC_LEN))
		*ours = true;
	if (!found && !*ours && size)
		found = blkid_signature(fd, buf, buf_len);
	/* Unknown, but not empty.  Images of some file systems begin with many zeros, not 1 MiB. */
	if (!found && !*ours && !all_zero(head, n))
		found = EM_PROBE_DATA;
	free(head);
	return found;
}
