/* SPDX-License-Identifier: MIT */
/*
 * The clocks.  Fault times are taken with the cycle counter.  Its rate is measured against the monotonic clock
 * between start and the first time anybody asks at least 10 ms later; until then a guess
 * of 2.5 GHz does.
 *
 * A thread that reads the counter after prctl(PR_SET_TSC, PR_TSC_SIGSEGV) gets a SIGSEGV, which would end a
 * program whose fault is being served.  From then on the monotonic clock stands in, in the same unit.
 */
#include "core.h"

#include <time.h>

#include "sys.h"

static struct {
	uint64_t tsc0, ns0;
	uint64_t mult; /* ns = cycles * mult >> 32; 0: not measured yet */
	uint64_t rate; /* cycles = ns * rate >> 16; 0: the counter may be read */
} clk;

static const uint64_t guess = (2ull << 32) / 5;

/* a * b >> shift, in two halves, so that long times do not overflow. */
static uint64_t scaled(uint64_t a, uint64_t b, unsigned shift)
{
	return (a >> shift) * b + (((a & ((1ull << shift) - 1)) * b) >> shift);
}

uint64_t em_now_ns(void)
{
	struct timespec ts = { 0, 0 };

	em_syscall2(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t em_cycles(void)
{
	uint64_t rate = __atomic_load_n(&clk.rate, __ATOMIC_RELAXED);

	if (__builtin_expect(rate != 0, 0))
		return clk.tsc0 + scaled(em_now_ns() - clk.ns0, rate, 16);
	return __builtin_ia32_rdtsc();
}

static uint64_t measure(void)
{
	uint64_t dc = em_cycles() - clk.tsc0, dn;

	if (dc < 40000000)
		return guess;
	dn = em_now_ns() - clk.ns0;
	while (dn >> 32) {
		dn >>= 1;
		dc >>= 1;
	}
	if (!dc || !((dn << 32) / dc))
		return guess;
	__atomic_store_n(&clk.mult, (dn << 32) / dc, __ATOMIC_RELAXED);
	return (dn << 32) / dc;
}

static uint64_t mult(void)
{
	uint64_t m = __atomic_load_n(&clk.mult, __ATOMIC_RELAXED);

	return m ? m : measure();
}

uint64_t em_cycles_to_ns(uint64_t cycles)
{
	return scaled(cycles, mult(), 32);
}

void em_clock_leave_counter(void)
{
	uint64_t m;

	if (__atomic_load_n(&clk.rate, __ATOMIC_RELAXED))
		return;
	m = mult();
	__atomic_store_n(&clk.mult, m, __ATOMIC_RELAXED);
	__atomic_store_n(&clk.rate, (1ull << 48) / m, __ATOMIC_SEQ_CST);
}

/* It is not forbidden here: the dynamic linker has read it. */
void em_clock_start(void)
{
	clk.tsc0 = em_cycles();
	clk.ns0 = em_now_ns();
}
