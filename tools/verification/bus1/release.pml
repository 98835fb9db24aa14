/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * NODE_RELEASE, its being taken back, and the destruction: ipc/bus1/node.c.
 *
 * Transactions 0 and 1 are notifications: whose reference goes last makes it. 2
 * destroys the node. node->refs is 1: a holder drops that (0), and the owner sends
 * the node to itself, and drops that again (1).
 *
 * WITH_SEND: the owner has sent the node, and has not returned. Who received it drops
 * it (0), and then destroys another node (2), of which the owner is told, too.
 *
 * bus1_node_get()		get in Owner
 * bus1_node_put()		put()
 * bus1_node_release_locked()	RELEASE and COMMIT in put()
 * bus1_node_release_done()	the end of Receiver
 * bus1_node_release_is_stale()	STALE()
 */
#define NQ		1
#if defined(WITH_DESTROY)
#define NTX		3
#define NFIN		3
#define BEHIND(t)	(SEALED(2) && STAMP_LT(2, t))
#elif defined(WITH_SEND)
#define NTX		3
#define NFIN		2
#define BEHIND(t)	false
#else
#define NTX		2
#define NFIN		2
#define BEHIND(t)	false
#endif
#ifndef FAILS
#define FAILS		0
#endif
#define MORTAL(q, b, m)	((b) != 2)
#if defined(V_STALE_NO_REFS)
#define STALE(q, b, m)	((b) != 2 && BEHIND(b))
#elif defined(V_STALE_NO_DEATH)
#define STALE(q, b, m)	((b) != 2 && refs)
#else
#define STALE(q, b, m)	((b) != 2 && (refs || BEHIND(b)))
#endif
#define DROPPED(q, b, m) dropped(b)
#define AT_LOCK		final = (fin == NFIN)
#define AT_CLAIM(q, b)	claimed(b)
#define DEATHS		4
#include "queue.pml"

#define CLAIMED		3
#ifdef V_SEND_KEEPS
byte refs = 2;			/* node->refs */
#else
byte refs = 1;			/* node->refs */
#endif
byte rel;			/* node->release.state */
byte again = NONE;		/* node->release_again, with the position */
bool dead;			/* node->death is set */
bool told;			/* the owner has received NODE_DESTROY */
bool waited;			/* one waited for the one before */
bool due;			/* the owner is to be told that nobody has the node */
byte fin;

inline claimed(b) {
	reveal(b);
	if
	:: b != 2 ->
		rel = CLAIMED;
		assert(!told);		/* not after the destruction */
		assert(due);		/* nobody has it, and it was not told before */
		due = false
	:: else ->
#ifdef WITH_SEND
		assert(!due);		/* it came before that was entered */
#else
		/* What is due is not lost, though it may come behind */
		assert(!due || rel == READY)
#endif
	fi
}

/* There are references again, or it comes behind the destruction. */
inline dropped(b) {
	rel = IDLE;
	if
	:: !refs ->
		/* It was there before that was entered, so that is no surprise */
		assert(!HAS(atentry[2], b));
		due = false
	:: else
	fi
}

/* bus1_node_put() */
inline put(t, ph, n) {
	do
	:: atomic {
		if
		:: ph == 0 ->
			/* atomic_long_add_unless() */
			if
			:: refs != 1 -> refs--; ph = 4
			:: else -> ph = 1
			fi
		:: ph == 1 && !qlock[0] ->
			/* atomic_long_dec_and_test() */
			qlock[0] = true;
			refs--;
			if
			:: refs -> qlock[0] = false; ph = 4
			:: else -> due = true; ph = 2
			fi
		:: ph == 2 ->
			/* RELEASE: bus1_node_release_locked() looks at node->death */
			if
			:: dead -> qlock[0] = false; due = false; ph = 4
			:: else -> ph = 3
			fi
		:: ph == 3 ->
			/* COMMIT: bus1_queue_commit_locked(), or only the position */
			if
			:: rel == CLAIMED ->
#ifndef V_AGAIN_LATE
				clock_now(n);
				word[t] = max(n, flr[0] + 1) << 1 | 1;
				n = 0;
#endif
				again = t;
#ifdef REACH
				waited = true
#endif
			:: else -> q_commit(0, t, 1, n); rel = READY
			fi;
			qlock[0] = false;
			ph = 4
		:: ph == 4 ->
			if
#ifdef V_AGAIN_NO_PASS
			:: SEALED(t) && again != t -> clock_pass(TS(t)); reveal(t)
			:: SEALED(t) && again == t -> reveal(t)
#else
			:: SEALED(t) -> clock_pass(TS(t)); reveal(t)
#endif
			:: else
			fi;
			ph = 0;
			break
		fi
	   }
	od
}

/* Of a node, as far as the queue of the owner is concerned */
inline destroy(old, n) {
	atomic { !qlock[0] -> q_stage(0, 2, 1) };
	tx_seal(2, old, n);
	atomic { clock_pass(TS(2)) };
	atomic { !qlock[0] -> if :: grp[G(0, 2)] == STAGED -> ready(0, 2) :: else fi }
}

#ifndef WITH_SEND
proctype Holder()
{
	byte ph, n;

	atomic { enter(0) };
	put(0, ph, n);
	atomic { fin++ }
}

/* A message to itself, with the node, that is dropped or received. */
proctype Owner()
{
	byte ph, n;
	bool slow;

	/* bus1_node_get(), atomic_long_inc_not_zero() */
	atomic {
		if
		:: refs -> refs++
		:: else -> slow = true
		fi
	};
	if
	:: slow ->
		atomic {
			!qlock[0] ->
			refs++;
			due = false;
			again = NONE;
#ifndef V_NOT_TAKEN_BACK
			if
			:: rel == READY ->
				rel = IDLE;
				ph = 0;
				do
				:: ph < 2 ->
					if
					:: mem[G(0, ph)] -> q_unlink(0, ph, 0)
					:: else
					fi;
					ph++
				:: else -> break
				od;
				ph = 0
			:: else
			fi;
#endif
			slow = false
		}
	:: else
	fi;
	atomic { enter(1) };
	put(1, ph, n);
	atomic { fin++ }
}

/* bus1_nodes_destroy() */
proctype Destroyer()
{
	byte old, n;

	atomic { enter(2) };
	atomic { dead = true };
	destroy(old, n);
	atomic { reveal(2); fin++ }
}
#else
/* The rest of bus1_send_deinit(), after it was committed */
proctype Owner()
{
	byte ph, n;

#ifdef V_SEND_KEEPS
	atomic { enter(1) };
	put(1, ph, n);
#endif
	atomic { fin++ }
}

/* It was received: HANDLE_RELEASE, and NODES_DESTROY */
proctype Holder()
{
	byte ph, n, old;

	atomic { enter(0) };
	put(0, ph, n);
	atomic { enter(2) };
	destroy(old, n);
	atomic { reveal(2); fin++ }
}
#endif

proctype Receiver()
{
	byte b, m, n, i, ph, want, fails, more = NONE;
	bool final, failed;

	do
	:: true ->
		q_claim(0, b, m, n, i, ph, want);
		if
		:: atomic { b == NONE ->
			if
			:: final -> break
			:: else
			fi
		   }
		:: atomic { b == 2 ->
			handed_out(0, 2);
			told = true
		   }
		:: atomic { b != NONE && b != 2 ->
			if
			:: fails < FAILS -> failed = true; fails++
			:: true -> handed_out(0, b)
			fi
		   };
		   /* bus1_node_release_done() */
		   atomic {
			!qlock[0] ->
			qlock[0] = true;
			more = again;
			again = NONE;
			rel = IDLE;
			if
			:: failed && more == NONE && !refs ->
				q_unclaim(0, b, 0);
				rel = READY;
				due = true
			:: else
			fi;
			failed = false;
			if
			:: more == NONE -> qlock[0] = false
#ifdef V_AGAIN_LATE
			:: more != NONE && dead -> more = NONE; qlock[0] = false
#endif
			:: else
			fi
		   };
		   if
		   :: more != NONE ->
			/* bus1_queue_commit_at_locked(), with STALE() */
			atomic {
#ifdef V_AGAIN_LATE
				q_commit(0, more, 1, n);
#endif
				if
				:: STALE(0, more, 0) -> dropped(more)
				:: else ->
					mem[G(0, more)] = 1;
					ready(0, more);
					rel = READY
				fi;
				qlock[0] = false
			};
			atomic { clock_pass(TS(more)); more = NONE }
		   :: else
		   fi
		fi;
		atomic { b = 0; m = 0; final = false }
	od;
	/* Nobody has it, so the owner was told */
	assert(!due);
	assert(refs == 0);
#ifdef REACH
	assert(!(REACH));
#endif
}

init {
	atomic {
		last[0] = NONE;
		run Receiver();
		run Holder();
		run Owner();
#ifdef WITH_DESTROY
		run Destroyer()
#endif
	}
}
