/* SPDX-License-Identifier: MIT */
/*
 * Finding policies by name and loading them from files.
 * Arguments: random.so, then bad plug-ins 0 to 4 (see bad_plugin.c).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "policy/registry.h"
#include "sim.h"

static char **plugin;

static void expect_error(const char *name, int ret, const char *words)
{
	const struct extmem_policy_ops *ops;
	char err[300] = "";

	assert_int_equal(em_policy_load(name, &ops, err, sizeof(err)), ret);
	print_message("%s\n", err);
	assert_non_null(strstr(err, words));
	assert_null(strchr(err, '\n'));
}

static void built_in_names(void **state)
{
	const struct extmem_policy_ops *ops = NULL;
	const struct extmem_prefetch_ops *pf = NULL;
	char err[300];
	unsigned i;

	(void)state;
	for (i = 0; em_policy_name(i); i++) {
		assert_int_equal(em_policy_load(em_policy_name(i), &ops, err, sizeof(err)), 0);
		assert_ptr_equal(ops, em_policy_find(em_policy_name(i)));
		assert_true(ops->init && ops->events && ops->evict && ops->description);
	}
	for (i = 0; em_prefetch_name(i); i++) {
		assert_int_equal(em_prefetch_load(em_prefetch_name(i), &pf, err, sizeof(err)), 0);
		assert_true(pf->init && pf->fault && pf->description);
	}
	assert_ptr_equal(em_policy_find("2q"), &em_policy_2q);
	assert_null(em_policy_find("2"));
	assert_int_equal(em_prefetch_load("sequentia", &pf, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "sequential, none"));
}

static void clear_errors(void **state)
{
	(void)state;
	expect_error("lru2", -ENOENT, "unknown policy 'lru2'; known are 2q, fifo");
	expect_error("./no-such-file.so", -ENOENT, "no-such-file.so");
	expect_error("mine.so", -ENOENT, "./mine.so");
	expect_error("/etc/passwd", -ENOENT, "cannot load '/etc/passwd'");
	expect_error(plugin[2], -EINVAL, "does not export 'extmem_policy'");
	expect_error(plugin[3], -EINVAL, "extmem_policy.size is 16");
	expect_error(plugin[4], -EINVAL, "rebuild it");
	expect_error(plugin[5], -EINVAL, "extmem_policy.events is missing");
}

static void prefetcher_is_not_a_policy(void **state)
{
	const struct extmem_prefetch_ops *pf;
	char err[300];

	(void)state;
	assert_int_equal(em_prefetch_load(plugin[0], &pf, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "does not export 'extmem_prefetch'"));
}

static void older_plugin_works(void **state)
{
	const struct extmem_policy_ops *ops;
	char err[300];

	(void)state;
	assert_int_equal(em_policy_load(plugin[1], &ops, err, sizeof(err)), 0);
	assert_string_equal(ops->name, "bad");
	assert_null(ops->tick);
}

/* The template runs the course that the built-in policies run. */
static void template_keeps_the_promises(void **state)
{
	const struct extmem_policy_ops *ops;
	char err[300];

	(void)state;
	assert_int_equal(em_policy_load(plugin[0], &ops, err, sizeof(err)), 0);
	sim_start(ops, "", 20000, 5000);
	for (uint64_t k = 0; k < 300000; k++) {
		uint64_t r = sim_random(), i = r % sim.npages;

		sim.page[i].held = r >> 30 & 1;
		if (r >> 20 & 31)
			sim_touch(i, r >> 40 & 1);
		else
			for (uint64_t j = i; j < sim.npages && j < i + 50; j++)
				sim_gone(j);
	}
	for (uint64_t i = 0; i < sim.npages; i++)
		sim.page[i].held = 0;
	sim_drain();
	sim_stop();
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(built_in_names),
		cmocka_unit_test(clear_errors),
		cmocka_unit_test(prefetcher_is_not_a_policy),
		cmocka_unit_test(older_plugin_works),
		cmocka_unit_test(template_keeps_the_promises),
	};

	if (argc < 7) {
		printf("skipped: needs the plug-ins as arguments; run it through meson test\n");
		return 77;
	}
	plugin = argv + 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
