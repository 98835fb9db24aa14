// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which code a call has reached, from KCOV. Only the module is instrumented, so
 * what comes is short. A signal is a step from one place to the next within one
 * command, or an errno that a command has returned. What nobody has seen before
 * makes a program worth keeping.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"

#define KCOV_INIT_TRACE		_IOR('c', 1, unsigned long)
#define KCOV_ENABLE		_IO('c', 100)
#define KCOV_TRACE_PC		0
#define COVER_SIZE		(1 << 16)

bool cover_open(struct cover *cover)
{
	cover->fd = open("/sys/kernel/debug/kcov", O_RDWR | O_CLOEXEC);
	if (cover->fd < 0)
		return false;
	if (ioctl(cover->fd, KCOV_INIT_TRACE, COVER_SIZE))
		return false;
	cover->pcs = mmap(NULL, COVER_SIZE * sizeof(uint64_t),
			  PROT_READ | PROT_WRITE, MAP_SHARED, cover->fd, 0);
	if (cover->pcs == MAP_FAILED)
		cover->pcs = NULL;
	return cover->pcs;
}

/* In the thread itself, for the rest of its life. */
void cover_enable(struct cover *cover)
{
	if (cover->pcs && ioctl(cover->fd, KCOV_ENABLE, KCOV_TRACE_PC))
		cover->pcs = NULL;
}

void cover_begin(struct cover *cover)
{
	if (cover->pcs)
		__atomic_store_n(&cover->pcs[0], 0, __ATOMIC_RELAXED);
}

static uint32_t hash(uint32_t a, uint32_t b)
{
	uint32_t h = (a * 0x9e3779b1u) ^ (b * 0x85ebca77u);

	h ^= h >> 15;
	return h * 0xc2b2ae3du;
}

static void note_pc(uint64_t pc)
{
	uint32_t at = hash(pc, 1) >> (32 - PC_BITS);
	uint64_t old;

	for (;; at = (at + 1) & ((1 << PC_BITS) - 1)) {
		old = atomic_load_explicit(&shared->pcs[at], memory_order_relaxed);
		if (old == pc)
			return;
		if (!old && atomic_compare_exchange_strong(&shared->pcs[at], &old, pc)) {
			atomic_fetch_add(&shared->n_pcs, 1);
			return;
		}
		if (old == pc)
			return;
	}
}

static void note_signal(struct process *p, uint32_t h)
{
	uint64_t bit;

	if (p->probing) {
		bit = 1ULL << (h & 63);
		if (p->want[h >> 6 & 1023] & bit)
			p->got[h >> 6 & 1023] |= bit;
	}
	h >>= 32 - SIGNAL_BITS;
	bit = 1ULL << (h & 63);
	if (atomic_load_explicit(&shared->signals[h / 64], memory_order_relaxed) & bit)
		return;
	if (atomic_fetch_or(&shared->signals[h / 64], bit) & bit)
		return;
	atomic_fetch_add(&shared->n_signals, 1);
}

static bool is_fresh(uint32_t h)
{
	h >>= 32 - SIGNAL_BITS;
	return !(atomic_load_explicit(&shared->signals[h / 64],
				      memory_order_relaxed) >> (h & 63) & 1);
}

static void see(struct process *p, uint32_t h)
{
	unsigned int n;

	if (!p->probing && !is_fresh(h))
		return;
	if (is_fresh(h)) {
		n = __atomic_fetch_add(&p->fresh.n, 1, __ATOMIC_RELAXED);
		if (n < ARRAY_SIZE(p->fresh.hash))
			p->fresh.hash[n] = h;
	}
	note_signal(p, h);
}

void cover_end(struct cover *cover, struct process *p, unsigned int op, int error)
{
	uint32_t previous = op, pc, h;
	uint64_t i, n;

	if (!cover->pcs)
		return;
	n = __atomic_load_n(&cover->pcs[0], __ATOMIC_RELAXED);
	if (n >= COVER_SIZE)
		n = COVER_SIZE - 1;
	for (i = 1; i <= n; ++i) {
		pc = cover->pcs[i];
		h = hash(previous, pc);
		if (p->probing || is_fresh(h)) {
			note_pc(cover->pcs[i]);
			see(p, h);
		}
		previous = pc;
	}
	if (n)
		see(p, hash(op + 1000, -error));
}

/* Ask whether a program shows certain signals again. */
void cover_probe(struct process *p, const struct signals *want)
{
	unsigned int i, n = want->n;

	if (n > ARRAY_SIZE(want->hash))
		n = ARRAY_SIZE(want->hash);
	memset(p->want, 0, sizeof(p->want));
	memset(p->got, 0, sizeof(p->got));
	for (i = 0; i < n; ++i)
		p->want[want->hash[i] >> 6 & 1023] |= 1ULL << (want->hash[i] & 63);
	p->probing = true;
}

unsigned int cover_probe_end(struct process *p)
{
	unsigned int i, n = 0;

	p->probing = false;
	for (i = 0; i < ARRAY_SIZE(p->got); ++i)
		n += __builtin_popcountll(p->got[i]);
	return n;
}
