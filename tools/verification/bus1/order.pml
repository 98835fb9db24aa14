/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Messages to nodes that live: the total order of uapi section 5 alone.
 *
 * NTX senders, each of which sends once to the queues in DEST_<n> (to one: the fast
 * path, to more: stage, seal, settle), and NQ receivers. That one of them sends
 * twice is covered: the second may be entered when the first has returned. A
 * receive may fail, FAILS times per queue, and put the message back.
 *
 * bus1_send_commit()		Sender
 * bus1_send_unicast()		the branch with one destination
 * bus1_send_multicast()	the other one
 * bus1_recv_prepare()		q_claim() in Receiver
 * bus1_recv_put_back()		q_unclaim() in Receiver
 * bus1_recv_commit()		done[] in Receiver
 */
#ifndef DEST_3
#define DEST_3	0
#endif
#ifndef FAILS
#define FAILS	0
#endif
#define DEST(t)	((t) == 0 -> DEST_0 : ((t) == 1 -> DEST_1 : ((t) == 2 -> DEST_2 : DEST_3)))
#define IS_ONE(set) (((set) & ((set) - 1)) == 0)

#define MORTAL(q, b, m)		false
#define STALE(q, b, m)		false
#define DROPPED(q, b, m)	skip
/*
 * If no receive fails, everybody knows of a message when it is claimed: this is earlier
 * than they can, so more has to come after it.
 */
#if FAILS == 0
#define AT_CLAIM(q, b)	hand_out(q, b)
#endif
#include "queue.pml"

inline hand_out(q, b) {
	assert(HAS(todo[q], b));		/* once */
	handed_out(q, b);
	todo[q] = todo[q] & ~BIT(b)
}

proctype Sender(byte t)
{
	byte q, old, n, entry_clock;

	atomic {
#ifndef LATE
		enter(t);
#endif
#ifdef V_SEAL_ENTRY_CLOCK
		clock_now(entry_clock);
#endif
		q = 0;
		do
		:: q < NQ && !HAS(DEST(t), q) -> q++
		:: else -> break
		od
	};
	if
	:: IS_ONE(DEST(t)) ->
		/* bus1_send_unicast() */
		atomic {
			!qlock[q] ->
#ifdef LATE
			enter(t);
#endif
			q_commit(q, t, 1, n);
		}
	:: else ->
		/* bus1_send_multicast(), bus1_send_stage() */
		do
		:: atomic {
			q < NQ && !qlock[q] ->
			q_stage(q, t, 1);
			q++;
			do
			:: q < NQ && !HAS(DEST(t), q) -> q++
			:: else -> break
			od
		   }
		:: q == NQ -> break
		od;
		tx_seal(t, old, n);
	fi;
	/*
	 * bus1_queue_settle() only does what a reader would do next time, so it is left
	 * out here; destroy.pml has it.
	 */
	atomic {
		clock_pass(TS(t));
		q = 0;
		entry_clock = 0;
		reveal(t)
	}
}

byte ends;

proctype Receiver(byte q)
{
	byte b, m, n, i, ph, want, fails;

	do
	:: todo[q] ->
		q_claim(q, b, m, n, i, ph, want);
#if FAILS > 0
		atomic {
			if
			:: b == NONE
			:: b != NONE ->
				reveal(b);
				if
				:: fails < FAILS -> m = NONE
				:: true -> hand_out(q, b)
				fi
			fi
		};
		if
		:: m == NONE ->
			/* What was told is taken back, but it may have been seen */
			atomic {
				!qlock[q] ->
				fails++;
				q_unclaim(q, b, 0)
			}
		:: else
		fi;
#endif
		atomic { b = 0; m = 0 }
	:: else -> break
	od;
	ends++;
#ifdef REACH
	/* All has happened, time went on, and a sender was pushed above the clock */
	assert(!(ends == NQ && TS(0) > CAP))
#endif
}

init {
	byte i, q;

	atomic {
		do
		:: q < NQ ->
			i = 0;
			do
			:: i < NTX ->
				if
				:: HAS(DEST(i), q) -> todo[q] = todo[q] | BIT(i)
				:: else
				fi;
				i++
			:: else -> break
			od;
			last[q] = NONE;
			q++
		:: else -> break
		od;
		i = 0;
		do
		:: i < NTX -> run Sender(i); i++
		:: else -> break
		od;
		q = 0;
		do
		:: q < NQ -> run Receiver(q); q++
		:: else -> break
		od;
		i = 0;
		q = 0
	}
}
