/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The clock, transactions and queues of ipc/bus1/util/queue.c, and an observer
 * who knows everything.
 *
 * Steps
 * =====
 * One step (atomic, d_step) is at most one access to what is shared without a
 * lock: tx->word, or the clock. What a spinlock protects is accessed by whoever
 * holds it only, so it may be part of the same step, and so may taking and
 * dropping the lock (Lipton 1975). A section that accesses several words, or the
 * clock and a word, is several steps with `qlock' held. A compare-and-swap loop
 * that ends is one access: the attempts that fail change nothing.
 *
 * What a state is in which some process never moves again: every one. Nothing
 * here is fair, and all claims are of the kind "whatever the others have done so
 * far", so a sender that stops anywhere needs no modelling.
 *
 * Clock
 * =====
 * Time moves on when somebody looks at it, by any amount, up to CAP: nobody can
 * tell when it moved if nobody looked. Two reads on two CPUs may so return the
 * same. bus1_clock_pass() takes as long as it takes: whatever else happens
 * meanwhile may as well happen before it. What must be passed lifts time above
 * CAP, so CAP bounds surprises, not runs.
 *
 * Observer
 * ========
 * Tells every process of everything at once: `known' are transactions that have
 * returned, were received, or seen in an errno or in an INVALID handle. So there
 * is a side channel between all strangers. pred[t] is the set of transactions that
 * must come before t, closed transitively: edge() finds the first cycle.
 *
 * A model defines NQ and NTX, and says by todo[] what each queue has to hand out.
 */
#define NONE		255

byte now = 1;			/* the machine's clock */
byte word[NTX];			/* tx->word: ts << 1 | sealed */
byte flr[NQ];			/* queue->floor */
bool qlock[NQ];			/* queue->lock */

/* A group of entries: one for each queue and transaction. */
#define IDLE		0
#define STAGED		1
#define READY		2
byte grp[NQ * NTX];		/* state of its leader */
byte key[NQ * NTX];		/* leader->stamp.ts while staged */
byte mem[NQ * NTX];		/* members: bits whose meaning is the model's */
#define G(q, t)		((q) * NTX + (t))

/* The IDs. */
#ifdef REVERSED
#define ID_LT(a, b)	((a) > (b))
#else
#define ID_LT(a, b)	((a) < (b))
#endif
#define SEALED(t)	(word[t] & 1)
#define TS(t)		(word[t] >> 1)
#ifdef V_TS_ONLY
/* Without IDs, equals are handed out in the order in which they came. */
byte came[NQ * NTX];
byte n_came[NQ];
#define BEFORE(q, a, b)	(TS(a) < TS(b) || (TS(a) == TS(b) && \
			 came[G(q, a)] < came[G(q, b)]))
#else
#define BEFORE(q, a, b)	STAMP_LT(a, b)
#endif
/* bus1_stamp_cmp() < 0 */
#define STAMP_LT(a, b)	(TS(a) < TS(b) || (TS(a) == TS(b) && ID_LT(a, b)))

#define max(a, b)	((a) > (b) -> (a) : (b))

/* bus1_clock_now(). In a broken variant what a CPU reads is not the same. */
#if defined(V_COARSE)
#define SHOWN		(now & 254)
#elif defined(V_SKEWED)
#define SHOWN		(now - (_pid & 1))
#elif defined(V_LAMPORT)
#define SHOWN		0
#else
#define SHOWN		now
#endif
inline clock_now(n) {
	do
	:: now < CAP -> now++
	:: break
	od;
	n = SHOWN
}

/* bus1_clock_pass() */
inline clock_pass(ts) {
#if !defined(V_NO_PASS) && !defined(V_LAMPORT)
	if
	:: now <= (ts) -> now = (ts) + 1
	:: else
	fi
#else
	skip
#endif
}

/* The observer. */
byte known;
byte pred[NTX];
#ifdef DEATHS
byte atentry[NTX];		/* what was known when it was entered */
#endif
byte last[NQ];			/* what each queue has handed out last */
byte todo[NQ];			/* what each queue has to hand out */

#define BIT(t)		(1 << (t))
#define HAS(set, t)	(((set) >> (t)) & 1)

/* One comes before the other. For use in d_step or atomic. */
inline edge(fst, snd) {
	assert((fst) != (snd) && !HAS(pred[fst], snd));	/* cycle */
	pred[snd] = pred[snd] | pred[fst] | BIT(fst);
	e_ = 0;
	do
	:: e_ < NTX ->
		if
		:: HAS(pred[e_], snd) -> pred[e_] = pred[e_] | pred[snd]
		:: else
		fi;
		e_++
	:: else -> e_ = 0; break
	od
}
hidden byte e_;

/*
 * A command is entered, for use in d_step or atomic. With LATE it is entered only when
 * it reads the clock: then it has to come after more, so that is harder, and there are
 * less states.
 */
inline enter(t) {
#ifdef DEATHS
	atentry[t] = known;
#endif
	pred[t] = pred[t] | known;
	x_ = 0;
	do
	:: x_ < NTX ->
		if
		:: HAS(known, x_) -> pred[t] = pred[t] | pred[x_]
		:: else
		fi;
		x_++
	:: else -> x_ = 0; break
	od
}
hidden byte x_;

/* Everybody knows that t has happened, for use in d_step or atomic. */
inline reveal(t) {
	known = known | BIT(t)
}

/* A queue has handed out an entry of t. */
inline handed_out(q, t) {
	if
	:: last[q] != NONE && last[q] != t -> edge(last[q], t)
	:: else
	fi;
	last[q] = t;
	reveal(t)
}

/* A group becomes ready. */
inline ready(q, t) {
	grp[G(q, t)] = READY;
	key[G(q, t)] = 0;
#ifdef V_TS_ONLY
	n_came[q]++;
	came[G(q, t)] = n_came[q]
#endif
}

/*
 * bus1_tx_push(), one access: a loop of compare-and-swaps. Returns in `bound' what
 * the transaction is sealed at or pushed to.
 */
inline tx_push(t, ts, bound) {
	if
#ifndef V_NO_PUSH
	:: !SEALED(t) && TS(t) < (ts) -> word[t] = (ts) << 1
#endif
	:: else
	fi;
	bound = TS(t)
}

/*
 * bus1_tx_seal(). Two steps: the word is read and the clock after it, then both are
 * put to use by a compare-and-swap, or again. That the word is read together with
 * the clock leaves out runs in which the compare-and-swap fails once more.
 */
inline tx_seal(t, old, n) {
	do
	:: atomic {
		old = word[t];
#ifdef LATE
		enter(t);
#endif
#ifdef V_SEAL_ENTRY_CLOCK
		n = entry_clock
#else
		clock_now(n)
#endif
	   };
	   atomic {
		if
#ifdef V_SEAL_STORE
		:: true ->
#else
		:: word[t] == old ->
#endif
			word[t] = max(n, (old >> 1) + 1) << 1 | 1;
			old = 0;
			n = 0;
			break
		:: else
		fi
	   }
	od
}

/*
 * bus1_queue_stage_locked() within the sections of its callers that consist of
 * nothing else, for transactions that the caller itself seals: it is not sealed, so
 * both pushes are the same, and one access.
 */
inline q_stage(q, t, member) {
#ifdef V_STAGE_NO_PUSH
	key[G(q, t)] = 0;
#else
	tx_push(t, flr[q], key[G(q, t)]);
#endif
	if
	:: grp[G(q, t)] == IDLE -> grp[G(q, t)] = STAGED
	:: else
	fi;
	mem[G(q, t)] = mem[G(q, t)] | (member)
}

/*
 * bus1_queue_commit_locked() in bus1_send_unicast() and bus1_node_put(): one access,
 * to the clock. Nobody but holders of the lock sees the stamp.
 */
inline q_commit(q, t, member, n) {
	clock_now(n);
	word[t] = max(n, flr[q] + 1) << 1 | 1;
	n = 0;
	mem[G(q, t)] = member;
	ready(q, t)
}

/* bus1_queue_settle(): the transaction is sealed, so its word does not change. */
inline q_settle(q, t) {
	d_step {
		!qlock[q];
		if
		:: grp[G(q, t)] == STAGED -> ready(q, t)
		:: else
		fi
	}
}

/* The next staged group from i on, or NTX. For use in d_step or atomic. */
inline next_staged(q, i) {
	do
	:: i < NTX && grp[G(q, i)] != STAGED -> i++
	:: else -> break
	od
}

/* The first ready group, or NONE. For use in d_step or atomic. */
inline first_ready(q, b) {
	b = NONE;
	f_ = 0;
	do
	:: f_ < NTX ->
		if
		:: grp[G(q, f_)] == READY && (b == NONE || BEFORE(q, f_, b)) -> b = f_
		:: else
		fi;
		f_++
	:: else -> f_ = 0; break
	od
}
hidden byte f_;

inline q_first_member(q, b, m) {
	m = 0;
	do
	:: !HAS(mem[G(q, b)], m) -> m++
	:: else -> break
	od
}

inline q_unlink(q, b, m) {
	mem[G(q, b)] = mem[G(q, b)] & ~BIT(m);
	if
	:: mem[G(q, b)] == 0 -> grp[G(q, b)] = IDLE; key[G(q, b)] = 0
	:: else
	fi
}

/* The next staged group from i on that is to be pushed above ts, or NTX. */
inline next_low(q, i, ts) {
	do
	:: i < NTX && !(grp[G(q, i)] == STAGED && key[G(q, i)] <= (ts)) -> i++
	:: else -> break
	od
}

#if defined(V_VISIBLE_EQ)
#define IS_PAST(b, n)	(TS(b) <= n)
#elif defined(V_LAMPORT)
#define IS_PAST(b, n)	true
#else
#define IS_PAST(b, n)	(TS(b) < n)
#endif

/* What is staged is pushed to the clock as it was read, so above all that is past. */
#if defined(V_PUSH_FIRST) || defined(V_LAMPORT)
#define BELOW(b, n)	TS(b)
#elif defined(V_COARSE) || defined(V_SKEWED)
#define BELOW(b, n)	((n) - ((n) > 0))
#else
#define BELOW(b, n)	((n) - 1)
#endif

/* V_FRESH_CLOCK: one that is not in the past is skipped, and the next tested anew. */
inline choose(q, b, n) {
	first_ready(q, b);
	if
	:: b != NONE && !IS_PAST(b, n) ->
#ifdef V_FRESH_CLOCK
		c_ = b;
		b = 0;
		clock_now(n_);
		do
		:: b < NTX && !(b != c_ && grp[G(q, b)] == READY && IS_PAST(b, n_)) -> b++
		:: else -> break
		od;
		c_ = 0;
		n_ = 0;
		if
		:: b == NTX -> b = NONE
		:: else
		fi
#else
		b = NONE
#endif
	:: else
	fi
}
hidden byte c_;
hidden byte n_;

/*
 * bus1_queue_claim() with bus1_queue_next_locked(), bus1_queue_collect_locked() and
 * bus1_queue_push_locked(). The lock is held from COLLECT on. Afterwards b is the
 * transaction, and m the member of its group; or b is NONE.
 *
 * What is sealed when the lock is taken is collected at once. That leaves out runs in
 * which the clock is older than this by the time that it is collected, and they
 * are no different: what is sealed already does not change. What is sealed later only
 * matters here if nothing is ready yet. Else to push finds the same.
 *
 * The model says by MORTAL(q, b, m) whether an entry can become stale, by STALE(q, b,
 * m) whether it is, in one access, and takes note of it in DROPPED(q, b, m).
 */
#define LOCK		0
#define COLLECT		1
#define CHOOSE		2
#define PUSH		3
#define TEST		4
#define OUT		5
inline q_claim(q, b, m, n, i, ph, want) {
	do
	:: atomic {
		if
		:: ph == LOCK && !qlock[q] ->
			/* bus1_clock_now(), with the lock just taken */
			qlock[q] = true;
			clock_now(n);
#ifndef NO_WANT
			want = todo[q] & known;
#endif
#ifdef AT_LOCK
			AT_LOCK;
#endif
			i = 0;
			do
			:: i < NTX ->
				if
				:: grp[G(q, i)] == STAGED && SEALED(i) -> ready(q, i)
				:: else
				fi;
				i++
			:: else -> break
			od;
			i = NTX;
			choose(q, b, n);
			if
			:: b == NONE -> i = 0; next_staged(q, i)
			:: else
			fi;
			ph = COLLECT
		:: ph == COLLECT && i < NTX ->
			/* bus1_tx_sealed() */
			if
			:: SEALED(i) -> ready(q, i)
			:: else
			fi;
			i++;
			next_staged(q, i)
		:: ph == PUSH ->
			/* bus1_tx_push() */
			tx_push(i, BELOW(b, n), key[G(q, i)]);
			if
			:: SEALED(i) -> ready(q, i)
			:: else
			fi;
			i++;
			next_low(q, i, BELOW(b, n));
			ph = (i < NTX -> PUSH : CHOOSE)
		:: ph == TEST ->
			/* queue->ops->stale() */
			if
			:: STALE(q, b, m) ->
				q_unlink(q, b, m);
				DROPPED(q, b, m);
				ph = CHOOSE
			:: else -> ph = OUT
			fi
		fi;
		/* From here on nothing is accessed but what the lock protects */
		if
		:: ph == COLLECT && i == NTX ->
			choose(q, b, n);
			if
			:: b != NONE ->
				i = 0;
				next_low(q, i, BELOW(b, n));
				ph = (i < NTX -> PUSH : CHOOSE)
			:: else -> ph = OUT
			fi
		:: else
		fi;
		if
		:: ph == CHOOSE ->
			choose(q, b, n);
			if
			:: b != NONE ->
				q_first_member(q, b, m);
				ph = (MORTAL(q, b, m) -> TEST : OUT)
			:: else -> ph = OUT
			fi
		:: else
		fi;
		if
		:: ph == OUT ->
			if
			:: b == NONE ->
				/* Nothing that is known is lost, or held up */
				assert(!(want & todo[q]))
			:: else ->
				/* The floor rises before the lock is released */
				flr[q] = max(flr[q], TS(b));
				q_unlink(q, b, m);
#ifdef AT_CLAIM
				AT_CLAIM(q, b)
#endif
			fi;
			want = 0;
			n = 0;
			i = 0;
			qlock[q] = false;
			ph = LOCK;
			break
		:: else
		fi
	   }
	od
}

/* bus1_queue_unclaim_locked(): in front of its group. */
inline q_unclaim(q, b, m) {
	mem[G(q, b)] = mem[G(q, b)] | BIT(m);
	if
	:: grp[G(q, b)] == IDLE -> ready(q, b)
	:: else
	fi
}
