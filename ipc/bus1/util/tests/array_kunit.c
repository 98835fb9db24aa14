// SPDX-License-Identifier: GPL-2.0-only

#include <kunit/test.h>
#include <linux/limits.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include "../array.h"
#include "kunit.h"

/* Every byte of an array is there, and none is more than that to KASAN. */
static void check_array_usable(struct kunit *test, size_t n, size_t size)
{
	u8 *array = bus1_array_new(n, size);

	KUNIT_EXPECT_NOT_NULL_MSG(test, array, "%zu of %zu bytes", n, size);
	if (!array)
		return;
	memset(array, 0xa5, n * size);
	if (n) {
		KUNIT_EXPECT_EQ(test, array[0], 0xa5);
		KUNIT_EXPECT_EQ(test, array[n * size - 1], 0xa5);
	}
	kvfree(array);
}

static void bus1_array_test_new(struct kunit *test)
{
	static const size_t counts[] = {
		0, 1, 7, 8, 9, PAGE_SIZE / 8, PAGE_SIZE / 8 + 1, 65536,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(counts); ++i) {
		check_array_usable(test, counts[i], 1);
		check_array_usable(test, counts[i], sizeof(u64));
		check_array_usable(test, counts[i], 24);
	}
}

/* Lengths that user space may name, but that nobody can have. */
static void bus1_array_test_new_huge(struct kunit *test)
{
	static const struct {
		size_t n, size;
	} huge[] = {
		{ (size_t)INT_MAX + 1, 1 },
		{ ((size_t)INT_MAX + 1) / 8, 8 },
		{ INT_MAX, 2 },
		{ UINT_MAX, 1 },
		{ 1UL << (BITS_PER_LONG - 24), 8 },
		{ SIZE_MAX, 1 },
		{ SIZE_MAX, SIZE_MAX },
		{ SIZE_MAX / 8 + 1, 8 },
		{ SIZE_MAX / 8 + 2, 8 },
		{ SIZE_MAX / 24 + 1, 24 },
	};
	unsigned int i;
	void *array;

	for (i = 0; i < ARRAY_SIZE(huge); ++i) {
		array = bus1_array_new(huge[i].n, huge[i].size);
		KUNIT_EXPECT_NULL_MSG(test, array, "%zu of %zu bytes",
				      huge[i].n, huge[i].size);
		kvfree(array);
	}
}

/* Each pair of places, for lengths on both sides of the change of algorithm. */
static void bus1_array_test_unique_pairs(struct kunit *test)
{
	u64 array[12], copy[12];
	size_t n, i, j;
	int r;

	for (n = 0; n <= ARRAY_SIZE(array); ++n) {
		for (i = 0; i < n; ++i)
			array[i] = (i * 7919 + 5) % 100003 * 4;
		KUNIT_EXPECT_EQ(test, bus1_array_check_unique(array, n), 0);
		for (i = 0; i < n; ++i) {
			for (j = 0; j < n; ++j) {
				if (i == j)
					continue;
				memcpy(copy, array, sizeof(copy));
				copy[i] = copy[j];
				r = bus1_array_check_unique(copy, n);
				KUNIT_EXPECT_EQ_MSG(test, r, -ENOTUNIQ,
						    "%zu: %zu, %zu", n, i, j);
			}
		}
	}
}

/* Numbers whose difference does not fit, in an order that is none. */
static void bus1_array_test_unique_extremes(struct kunit *test)
{
	static const u64 array[] = {
		U64_MAX, 0, 1ULL << 63, (1ULL << 63) - 1, U32_MAX, 1ULL << 32,
		U64_MAX - 1, 1, (1ULL << 63) + 1, (1ULL << 32) + 1, 2, 3,
	};
	u64 copy[ARRAY_SIZE(array) + 1];
	size_t i;

	memcpy(copy, array, sizeof(array));
	KUNIT_EXPECT_EQ(test,
			bus1_array_check_unique(copy, ARRAY_SIZE(array)), 0);
	KUNIT_EXPECT_EQ_MSG(test, memcmp(copy, array, sizeof(array)), 0,
			    "the array was changed");
	for (i = 0; i < ARRAY_SIZE(array); ++i) {
		copy[ARRAY_SIZE(array)] = array[i];
		KUNIT_EXPECT_EQ(test,
				bus1_array_check_unique(copy, ARRAY_SIZE(copy)),
				-ENOTUNIQ);
	}
}

static bool model_is_unique(const u64 *array, size_t n)
{
	size_t i, j;

	for (i = 0; i < n; ++i) {
		for (j = i + 1; j < n; ++j) {
			if (array[i] == array[j])
				return false;
		}
	}
	return true;
}

static void bus1_array_test_unique_random(struct kunit *test)
{
	unsigned int round, range, n_unique = 0, n_rounds = 2000;
	struct rnd_state rnd;
	u64 array[40];
	size_t i, n;
	bool unique;

	bus1_rnd_init(&rnd, 1);
	for (round = 0; round < n_rounds; ++round) {
		n = bus1_rnd(&rnd, ARRAY_SIZE(array) + 1);
		range = 1 + bus1_rnd(&rnd, 2 * n * n + 1);
		for (i = 0; i < n; ++i)
			array[i] = (u64)bus1_rnd(&rnd, range) << 33;
		unique = model_is_unique(array, n);
		n_unique += unique;
		KUNIT_EXPECT_EQ_MSG(test, bus1_array_check_unique(array, n),
				    unique ? 0 : -ENOTUNIQ, "round %u", round);
	}
	/* Both answers were asked for */
	KUNIT_EXPECT_GT(test, n_unique, n_rounds / 8);
	KUNIT_EXPECT_LT(test, n_unique, n_rounds / 8 * 7);
}

static struct kunit_case bus1_array_cases[] = {
	KUNIT_CASE(bus1_array_test_new),
	KUNIT_CASE(bus1_array_test_new_huge),
	KUNIT_CASE(bus1_array_test_unique_pairs),
	KUNIT_CASE(bus1_array_test_unique_extremes),
	KUNIT_CASE(bus1_array_test_unique_random),
	{}
};

static struct kunit_suite bus1_array_suite = {
	.name = "bus1_array",
	.test_cases = bus1_array_cases,
};

kunit_test_suite(bus1_array_suite);
