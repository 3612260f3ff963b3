/* SPDX-License-Identifier: MIT */
/*
 * ioctl: the request says how large its argument is, if it is one of the newer ones; what the argument points
 * to itself is known for the requests that ordinary programs use.
 */
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/if.h>
#include <linux/nvme_ioctl.h>
#include <linux/sockios.h>
#include <scsi/sg.h>
#include <sys/ioctl.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "hold.h"

enum {
	OLD_BYTES = 512,	/* terminals, disks and others without size bits: none takes more */
	LARGEST_DATA = 65536,	/* what an ethtool or wireless request points to, at most */
	DM_TYPE = 0xfd,
	DISK_TYPE = 0x12,
};

static void hold_ifconf(struct em_hold *h, uintptr_t p)
{
	struct {
		int len;
		uintptr_t buf;
	} c;

	if (!em_hold_get(h, &c, p, sizeof(c)) && c.len > 0)
		em_hold_range(h, c.buf, (size_t)c.len, EM_DIR_OUT);
}

/* Requests on network interfaces: a union of addresses and of a pointer; what is no managed
   address is not held. */
static void hold_ifreq(struct em_hold *h, unsigned long request, uintptr_t p)
{
	uintptr_t r[5];

	em_hold_range(h, p, sizeof(r), EM_DIR_OUT);
	if (!em_hold_get(h, r, p, sizeof(r)) &&
	    (request == SIOCETHTOOL || request >= SIOCDEVPRIVATE || request == SIOCBONDINFOQUERY ||
	     request == SIOCSHWTSTAMP || request == SIOCGHWTSTAMP))
		em_hold_range(h, r[2], LARGEST_DATA, EM_DIR_OUT);
}

static void hold_sg(struct em_hold *h, uintptr_t p)
{
	sg_io_hdr_t io;

	if (em_hold_get(h, &io, p, sizeof(io)))
		return;
	em_hold_range(h, p, sizeof(io), EM_DIR_OUT);
	em_hold_range(h, (uintptr_t)io.cmdp, io.cmd_len, EM_DIR_IN);
	em_hold_range(h, (uintptr_t)io.sbp, io.mx_sb_len, EM_DIR_OUT);
	if (io.iovec_count)
		em_hold_iov(h, (uintptr_t)io.dxferp, io.iovec_count, EM_DIR_OUT);
	else
		em_hold_range(h, (uintptr_t)io.dxferp, io.dxfer_len, EM_DIR_OUT);
}

static void hold_nvme(struct em_hold *h, uintptr_t p)
{
	struct nvme_passthru_cmd c;

	if (em_hold_get(h, &c, p, sizeof(c)))
		return;
	em_hold_range(h, c.addr, c.data_len, EM_DIR_OUT);
	em_hold_range(h, c.metadata, c.metadata_len, EM_DIR_OUT);
}

/* A count at some offset says how many elements follow the structure. */
static void hold_tail(struct em_hold *h, uintptr_t p, size_t at, size_t header, size_t each)
{
	uint32_t n;

	if (!em_hold_get(h, &n, p + at, sizeof(n)) && n < 1u << 20)
		em_hold_range(h, p, header + n * each, EM_DIR_OUT);
}

static void hold_device_mapper(struct em_hold *h, uintptr_t p)
{
	uint32_t size;

	if (!em_hold_get(h, &size, p + 12, sizeof(size)))
		em_hold_range(h, p, size, EM_DIR_OUT);
}

/* Requests that say nothing about their argument. */
static void hold_old(struct em_hold *h, unsigned long request, uintptr_t p)
{
	if (request == SIOCGIFCONF) {
		em_hold_range(h, p, 16, EM_DIR_OUT);
		hold_ifconf(h, p);
	} else if (request == SG_IO) {
		hold_sg(h, p);
	} else if ((request >> 8 & 0xff) == 0x89 || (request >> 8 & 0xff) == 0x8b) {
		hold_ifreq(h, request, p);
	} else if (request == FIONREAD || request == FIONBIO || request == FIOASYNC ||
		   (request >> 8 & 0xff) == DISK_TYPE) {
		em_hold_range(h, p, 32, EM_DIR_OUT);
	} else {
		em_hold_range(h, p, OLD_BYTES, EM_DIR_OUT);
	}
}

void em_hold_ioctl(struct em_hold *h, unsigned long request, uintptr_t p)
{
	size_t len = _IOC_SIZE(request);

	if (p < EM_PAGE_SIZE)
		return;
	if (!len || _IOC_DIR(request) == _IOC_NONE) {
		hold_old(h, request, p);
		return;
	}
	em_hold_range(h, p, len, EM_DIR_OUT);
	if (_IOC_TYPE(request) == DM_TYPE)
		hold_device_mapper(h, p);
	else if (request == FS_IOC_FIEMAP)
		hold_tail(h, p, offsetof(struct fiemap, fm_extent_count), sizeof(struct fiemap),
			  sizeof(struct fiemap_extent));
	else if (request == FIDEDUPERANGE)
		hold_tail(h, p, 16, sizeof(struct file_dedupe_range),
			  sizeof(struct file_dedupe_range_info));
	else if (request == NVME_IOCTL_ADMIN_CMD || request == NVME_IOCTL_IO_CMD)
		hold_nvme(h, p);
}
