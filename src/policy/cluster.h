/* SPDX-License-Identifier: MIT */
/*
 * Victims by neighbourhood.
 *
 * Evicting dirty pages costs one write protection for each 2 MiB block that has any,
 * 50 to 90 us with its TLB shootdown, whether it is for one page or for 512.  So once a
 * policy has settled on a dirty page it takes along other dirty pages of that block
 * which are next anyway: in a list that may be evicted from, and not among the youngest
 * of it.  Clean pages are dropped in one batch wherever they lie, so those wait for
 * their own turn.
 */
#ifndef EM_POLICY_CLUSTER_H
#define EM_POLICY_CLUSTER_H

#include "queue.h"

#define EM_CLUSTER_PAGES 512u /* of a 2 MiB block */

static inline bool em_cluster_wants(const struct em_queues *qs, unsigned list, extmem_page_t page)
{
	uint8_t tag = qs->host->tag_get(page);

	if ((tag & EM_TAG_LIST) == 0) {
		if (!qs->lost) /* else it may be one that could not be queued */
			return false;
	} else if ((tag & EM_TAG_LIST) != list || (tag & EM_TAG_USER) ||
		   em_queue_is_young(qs, tag)) {
		return false;
	}
	return qs->host->is_resident(page) && !qs->host->is_clean(page);
}

/*
 * `head` was just taken out of its list.  Writes it and its neighbours, in address order,
 * at most want >= 1 pages, and takes those out of `list`.
 */
static inline size_t em_cluster_take(struct em_queues *qs, unsigned list, extmem_page_t head,
				     size_t want, extmem_page_t *out)
{
	extmem_page_t p = head & ~(extmem_page_t)(EM_CLUSTER_PAGES - 1);
	extmem_page_t end = p + EM_CLUSTER_PAGES;
	size_t n = 0;

	if (want == 1 || qs->host->is_clean(head)) {
		out[0] = head;
		return 1;
	}
	for (; p < end && n < want; p++) {
		if (p == head) {
			out[n++] = p;
		} else if (n + (p < head) < want && em_cluster_wants(qs, list, p)) {
			em_queue_remove(qs, p, qs->host->tag_get(p));
			out[n++] = p;
		}
	}
	return n;
}

#endif
