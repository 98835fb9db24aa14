// SPDX-License-Identifier: GPL-2.0-only
#include <linux/errno.h>
#include <linux/limits.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/string.h>
#include <linux/types.h>
#include "array.h"

/* Arrays that are no longer than this are compared pair by pair. */
#define BUS1_ARRAY_SHORT	8
/* How many elements are looked at before the CPU may be given to others. */
#define BUS1_ARRAY_BATCH	1024

/**
 * bus1_array_new() - allocate an array
 * @n: number of elements
 * @size: size of an element, in bytes
 *
 * Context: Process context, may sleep.
 * Return: The array, not initialized, to be freed with kvfree(); NULL if there
 *	is no memory, which is nothing to tell the log about.
 */
void *bus1_array_new(size_t n, size_t size)
{
	size_t bytes = array_size(n, size);

	if (bytes > INT_MAX)
		return NULL;
	return kvmalloc(bytes, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
}

static int bus1_array_cmp(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	/* Long arrays take their time, and sort() never lets go of the CPU */
	cond_resched();
	return x < y ? -1 : x > y;
}

static int bus1_array_check_short(const u64 *array, size_t n)
{
	size_t i, j;

	for (i = 1; i < n; ++i) {
		for (j = 0; j < i; ++j) {
			if (array[i] == array[j])
				return -ENOTUNIQ;
		}
	}
	return 0;
}

/* Does each number come after a lower one? That is how the kernel gives IDs out. */
static bool bus1_array_ascends(const u64 *array, size_t n)
{
	size_t i;

	for (i = 1; i < n; ++i) {
		if (array[i - 1] >= array[i])
			return false;
		if (i % BUS1_ARRAY_BATCH == 0)
			cond_resched();
	}
	return true;
}

/**
 * bus1_array_check_unique() - check that no number is there twice
 * @array: array of numbers
 * @n: number of elements
 *
 * Context: Process context, may sleep.
 * Return: 0, -ENOTUNIQ, or -ENOMEM.
 */
int bus1_array_check_unique(const u64 *array, size_t n)
{
	u64 *copy;
	size_t i;
	int r = 0;

	if (n <= BUS1_ARRAY_SHORT)
		return bus1_array_check_short(array, n);
	if (bus1_array_ascends(array, n))
		return 0;

	copy = bus1_array_new(n, sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	memcpy(copy, array, n * sizeof(*copy));
	sort(copy, n, sizeof(*copy), bus1_array_cmp, NULL);
	for (i = 1; i < n && !r; ++i) {
		if (copy[i - 1] == copy[i])
			r = -ENOTUNIQ;
	}
	kvfree(copy);
	return r;
}
