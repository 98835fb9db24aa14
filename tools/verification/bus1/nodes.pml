/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nodes, handles to them, and their destruction: ipc/bus1/destroy.c, handle.c, and
 * what send.c, recv.c and peer.c do with them. One file, for many scenarios:
 * destroy.pml, transfer.pml, flush.pml and so on say which processes run.
 *
 * bus1_send_check_dests()	the check in Sender
 * bus1_send_unicast()		commit in Sender
 * bus1_send_stage()		stage in Sender
 * bus1_nodes_destroy()		Destroyer
 * bus1_destroy_stage()		n_stage()
 * bus1_handle_drop()		drop in Destroyer
 * bus1_destroy_settle()	n_settle(), with bus1_node_purge()
 * bus1_handle_import_prepare()	h_prepare()
 * bus1_handle_try_join()	h_join(), with bus1_handle_stage_locked()
 * bus1_handle_import()		both of them, in Receiver
 * bus1_handle_commit_new()	birth in Transfer
 * bus1_queue_peek()		Poll
 * bus1_handle_import_undo()	h_undo(), with bus1_handle_expire_locked() and
 *				bus1_handle_retire()
 * bus1_handle_import_commit()	h_commit()
 * bus1_peer_transfer()		Transfer
 * bus1_handle_release()	Release
 * bus1_peer_flush()		Flush, with bus1_destroy_all(), bus1_queue_flush()
 * bus1_node_is_stale(), bus1_handle_is_stale()		STALE()
 *
 * A handle that has left the table of its peer and one that takes its place are
 * two objects: NK of them for each peer and node.
 *
 * NODE_DESTROY may only be told of a handle that user space has, or whose transfer has
 * joined: then it must be committed. The same goes for a message to the node. That is
 * what `owed' is about: set if something is claimed while there is no user reference,
 * and void when one comes.
 *
 * handles.lock is held for one step each time, so it needs no variable: tables and
 * counts are changed in one go. destroy_mutex and recv_mutex are variables where
 * more than one process of a peer may want them.
 */
#ifndef NN
#define NN	1
#endif
#ifndef NK
#define NK	2
#endif
#define H(p, m)		((p) * NN * NK + (m))	/* m: member bit, node * NK + k */
#define T(p, n)		((p) * NN + (n))
#define IS_DEATH(t)	HAS(DEATHS, t)
#define IS_TO_NODE(q, t) ((q) == 0 && HAS(TO_NODE, t))
#ifndef OWNER
#define OWNER(n)	0
#endif
#define LIVE(h)		(user[h] || joi[h])	/* handle->live */
#define MORTAL(q, b, m)	(IS_DEATH(b) || IS_TO_NODE(q, b))
#define STALE(q, b, m)	((IS_DEATH(b) && !LIVE(H(q, m))) || \
			 (IS_TO_NODE(q, b) && NODE_STALE(b)))
#define OWNERS(n)	H(OWNER(n), (n) * NK)	/* the owner's, as its node knows it */
/* node->owner_gone; V_GONE_...: it is set once, when the last reference or ID goes */
#if defined(V_GONE_AT_DROP) || defined(V_GONE_AT_EXPIRE)
#define OWNER_GONE(n)	owner_gone[n]
#else
#define OWNER_GONE(n)	(!LIVE(OWNERS(n)))
#endif
#define NODE_STALE(t)	(death[0] != NONE && (OWNER_GONE(0) || \
			 (SEALED(death[0]) && STAMP_LT(death[0], t))))
#define DROPPED(q, b, m) dropped(q, b)
#define AT_LOCK		final = (fin == NFIN)
#define AT_CLAIM(q, b)	claimed(q, b, m)
#include "queue.pml"

byte death[NN] = NONE;		/* node->death */
#if defined(V_GONE_AT_DROP) || defined(V_GONE_AT_EXPIRE)
bool owner_gone[NN];
#endif
bool nlock[NN];			/* node->lock */
byte user[NQ * NN * NK];	/* handle->user_refs */
byte imp[NQ * NN * NK];		/* handle->imports */
byte joi[NQ * NN * NK];		/* handle->joined */
byte link[NQ * NN * NK];	/* 0, in node->holders or node->notified */
bool isn[NQ * NN * NK];		/* handle->is_notified */
byte told[NQ * NN * NK];	/* NODE_DESTROY was received */
bool owed[NQ * NN * NK];	/* see above */
#ifdef WITH_FLUSH
bool kept[NQ * NN * NK];	/* it outlives a flush, with a position before that */
#define KEPT(h)		kept[h]
#else
#define KEPT(h)		owed[h]		/* nothing is flushed */
#endif
byte cur[NQ * NN] = NK;		/* the handle in the table, NK if none */
byte gen[NQ * NN];		/* the next one to be made */
bool dmutex[NQ];		/* destroy_mutex */
bool rmutex[NQ];		/* recv_mutex */
byte fin;			/* how many processes but receivers are through */

inline dropped(q, t) {
	if
	:: !IS_DEATH(t) ->
		/* If it had returned before the destruction was entered, it must come */
		assert(death[0] != NONE &&
		       (!user[OWNERS(0)] || !HAS(atentry[death[0]], t)));
		todo[q] = todo[q] & ~BIT(t)
	:: else
	fi
}

/* Everybody knows of what is claimed: this is earlier than they can. */
inline claimed(q, b, m) {
	reveal(b);
	if
	:: IS_DEATH(b) && !user[H(q, m)] -> owed[H(q, m)] = true
	:: IS_TO_NODE(q, b) && !user[OWNERS(0)] -> owed[OWNERS(0)] = true
	:: else
	fi
}

/* Who has handles at the start, or of a node that is born: peer p to node n. */
inline has(p, n) {
	user[H(p, n * NK)] = 1;
	link[H(p, n * NK)] = 1;
	cur[T(p, n)] = 0;
	gen[T(p, n)] = 1
}

/* bus1_handle_expire_locked() */
inline h_expire(p, m, gone) {
	gone = false;
	if
	:: !user[H(p, m)] && !imp[H(p, m)] && cur[T(p, (m) / NK)] == (m) % NK ->
		cur[T(p, (m) / NK)] = NK;
		gone = true;
#ifdef V_GONE_AT_EXPIRE
		if
		:: p == OWNER((m) / NK) && (m) % NK == 0 -> owner_gone[(m) / NK] = true
		:: else
		fi
#endif
	:: else
	fi
}

/* bus1_handle_drop_locked(), bus1_handle_expire_locked() */
inline h_drop(p, m, left, gone) {
	user[H(p, m)] = left;
#ifdef V_GONE_AT_DROP
	if
	:: p == OWNER((m) / NK) && (m) % NK == 0 && !user[H(p, m)] ->
		owner_gone[(m) / NK] = true
	:: else
	fi;
#endif
	h_expire(p, m, gone)
}

/* bus1_queue_stage_locked() wants an entry that is idle */
inline idle(p, d, m) {
	assert(!HAS(mem[G(p, d)], m) && !told[H(p, m)])
}

/* bus1_destroy_stage() */
inline n_stage(n, d, p, m) {
	atomic { !nlock[n] -> death[n] = d; p = 0; m = n * NK };
	do
	:: atomic {
		/* The first one that is in node->holders */
		p < NQ && !nlock[n] ->
		p = 0;
		m = n * NK;
		do
		:: p < NQ && link[H(p, m)] != 1 ->
			m++;
			if
			:: m == (n + 1) * NK -> m = n * NK; p++
			:: else
			fi
		:: else -> break
		od
	   };
	   if
	   :: atomic { p < NQ && link[H(p, m)] == 1 && !nlock[n] && !qlock[p] ->
		link[H(p, m)] = 2;
		if
#ifdef V_TWICE
		:: LIVE(H(p, m)) ->
#else
		:: !isn[H(p, m)] && LIVE(H(p, m)) ->
#endif
			isn[H(p, m)] = true;
			idle(p, d, m);
			q_stage(p, d, BIT(m))
		:: !isn[H(p, m)] && !LIVE(H(p, m)) -> tx_push(d, flr[p], x_); x_ = 0
		:: else
		fi
	      }
	   :: p < NQ && link[H(p, m)] != 1	/* retired meanwhile */
	   :: p == NQ
	   fi
	:: p == NQ -> break
	od;
	p = 0;
	m = 0
}

/* bus1_destroy_settle(), bus1_node_purge() */
inline n_settle(n, d, p, m) {
	do
	:: atomic {
		p < NQ && !nlock[n] ->
		p = 0;
		m = n * NK;
		do
		:: p < NQ && link[H(p, m)] != 2 ->
			m++;
			if
			:: m == (n + 1) * NK -> m = n * NK; p++
			:: else
			fi
		:: else -> break
		od;
		if
		:: p < NQ -> link[H(p, m)] = 1
		:: else
		fi
	   };
	   if
	   :: atomic { p < NQ && !qlock[p] ->
		if
		:: grp[G(p, d)] == STAGED -> ready(p, d)
		:: else
		fi
	      }
	   :: p == NQ
	   fi
	:: p == NQ -> break
	od;
	p = 0;
	m = 0;
	/* What is doomed is dropped; the destruction has been passed */
	do
	:: atomic { m < NTX && !qlock[0] ->
		if
		:: n == 0 && HAS(TO_NODE, m) && grp[G(0, m)] != IDLE ->
			if
			:: grp[G(0, m)] == STAGED && SEALED(m) -> ready(0, m)
			:: else
			fi;
			if
			:: grp[G(0, m)] == STAGED || NODE_STALE(m) ->
				mem[G(0, m)] = 0;
				grp[G(0, m)] = IDLE;
				key[G(0, m)] = 0;
				dropped(0, m)
			:: else
			fi
		:: else
		fi;
		m++
	   }
	:: m == NTX -> m = 0; break
	od
}

/* bus1_handle_retire() */
inline h_retire(p, m) {
	atomic {
		!nlock[(m) / NK] && !qlock[p] ->
		link[H(p, m)] = 0;
		r_ = 0;
		do
		:: r_ < NTX ->
			if
			:: IS_DEATH(r_) && HAS(mem[G(p, r_)], m) -> q_unlink(p, r_, m)
			:: else
			fi;
			r_++
		:: else -> r_ = 0; break
		od
	}
}
hidden byte r_;

/* bus1_handle_import_prepare(), bus1_handle_import_find() */
inline h_prepare(p, n, m) {
	atomic {
		if
		:: cur[T(p, n)] == NK ->
			assert(gen[T(p, n)] < NK);
			cur[T(p, n)] = gen[T(p, n)];
			gen[T(p, n)]++
		:: else
		fi;
		m = n * NK + cur[T(p, n)];
		imp[H(p, m)]++
	}
}

/* bus1_handle_import_undo(). One that is not in the table goes with its last import. */
inline h_undo(p, m, joined, gone) {
#ifdef V_JOIN_KEPT
	skip
#else
	atomic {
		imp[H(p, m)]--;
		if
		:: joined -> joi[H(p, m)]--
		:: else
		fi;
		if
		:: cur[T(p, (m) / NK)] == (m) % NK -> h_expire(p, m, gone)
		:: else -> gone = !imp[H(p, m)]
		fi
	};
	if
	:: gone -> h_retire(p, m); gone = false
	:: else
	fi
#endif
}

/*
 * bus1_handle_try_join(). `b' is the message that carries the node, or NONE. What
 * is left in `dead' is whether the node is destroyed, before `b' if there is one, and
 * in `again' whether the handle cannot be notified any more. What RECV has claimed
 * is not idle, but then it imports nothing, and for a TRANSFER it is too late.
 */
inline h_join(p, n, b, m, d, dead, again, sealed, gone) {
#ifdef V_LIVE_EARLY
	atomic { joi[H(p, m)]++ };
#endif
	/* With all three locks, of which nobody waits for more while holding another */
	atomic {
		!nlock[n] && !qlock[p] ->
		d = death[n];
		dead = false;
		if
		:: d != NONE ->
#ifndef V_JOIN_NO_PUSH
			x_ = flr[p];
			if
			:: b != NONE -> x_ = TS(b)
			:: else
			fi;
			tx_push(d, x_, x_);
			x_ = 0;
#endif
			sealed = SEALED(d);
			dead = sealed && (b == NONE || STAMP_LT(d, b));
#ifndef V_NO_AGAIN
			again = !dead && isn[H(p, m)] && !LIVE(H(p, m)) &&
				!HAS(mem[G(p, d)], m);
#endif
			/* A TRANSFER takes it for dead: it was dropped, so it was sealed */
			assert(!again || b != NONE)
		:: else
		fi;
#ifndef V_LIVE_EARLY
		joi[H(p, m)] = joi[H(p, m)] + (!dead && !again);
#endif
		if
		:: again && cur[T(p, n)] == (m) % NK -> cur[T(p, n)] = NK
		:: !dead && !again && link[H(p, m)] == 0 ->
			link[H(p, m)] = (d == NONE -> 1 : 2)
		:: else
		fi;
#ifdef V_TWICE
		nlock[n] = (d != NONE && !dead && !again);
#else
		nlock[n] = (d != NONE && !dead && !again && !isn[H(p, m)]);
#endif
#ifndef V_JOIN_UNLOCKED
		qlock[p] = nlock[n]
#endif
	};
	if
#ifdef V_TWICE
	:: d != NONE && !dead && !again ->
#else
	:: d != NONE && !dead && !again && !isn[H(p, m)] ->
#endif
		/* bus1_handle_stage_locked(), bus1_queue_stage_locked() */
		atomic {
#ifdef V_JOIN_UNLOCKED
			!qlock[p];
#else
#ifndef V_JOIN_NO_PUSH
			tx_push(d, flr[p], x_);
			x_ = 0;
#endif
#endif
			isn[H(p, m)] = true;
			sealed = SEALED(d);
			idle(p, d, m);
			mem[G(p, d)] = mem[G(p, d)] | BIT(m);
			if
			:: SEALED(d) -> ready(p, d)
			:: !SEALED(d) && grp[G(p, d)] == STAGED
			:: !SEALED(d) && grp[G(p, d)] == IDLE ->
				grp[G(p, d)] = STAGED;
				key[G(p, d)] = TS(d)
			fi;
			qlock[p] = false;
			nlock[n] = false
		}
	:: else
	fi;
	atomic {
		if
		:: sealed -> clock_pass(TS(d))
		:: else
		fi;
		sealed = false
	};
	if
#ifdef V_LIVE_EARLY
	:: dead || again -> h_undo(p, m, true, gone)
#else
	:: dead || again -> h_undo(p, m, false, gone)
#endif
	:: else
	fi
}

/* bus1_handle_import_commit() */
inline h_commit(p, m) {
	assert(imp[H(p, m)] && joi[H(p, m)]);
	imp[H(p, m)]--;
	joi[H(p, m)]--;
	user[H(p, m)]++;
	owed[H(p, m)] = false
}

#ifndef DEST_0
#define DEST_0	0
#endif
#ifndef DEST_1
#define DEST_1	0
#endif
#define DEST(t)	((t) == 0 -> DEST_0 : DEST_1)
#define IS_ONE(set) (((set) & ((set) - 1)) == 0)
#define NEXT_Q(t)							\
	do								\
	:: q < NQ && !HAS(DEST(t) & ~skipped, q) -> q++			\
	:: else -> break						\
	od

/* A SEND with CONTINUE to the queues in DEST(t); on queue 0 maybe to node 0. */
proctype Sender(byte t)
{
	byte q, old, n, skipped;

	/* bus1_send_check_dests(), bus1_node_destroyed() */
	atomic {
		enter(t);
		if
		:: HAS(DEST(t), 0) && HAS(TO_NODE, t) ->
			if
			:: death[0] != NONE && SEALED(death[0]) -> skipped = 1
			:: else ->
				/* Whoever enters after NODES_DESTROY is told */
				assert(death[0] == NONE || !HAS(atentry[t], death[0]))
			fi
		:: else
		fi
	};
	if
	:: skipped ->
		atomic {
			clock_pass(TS(death[0]));
			reveal(death[0]);
			todo[0] = todo[0] & ~BIT(t)
		}
	:: else
	fi;
	atomic { NEXT_Q(t) };
	if
	:: q < NQ && IS_ONE(DEST(t) & ~skipped) ->
		/* bus1_send_unicast(), bus1_queue_commit_locked() */
		atomic {
			!qlock[q] ->
			qlock[q] = true;
			clock_now(n);
			word[t] = max(n, flr[q] + 1) << 1 | 1;
			n = 0
		};
		atomic {
			if
			:: IS_TO_NODE(q, t) && NODE_STALE(t) -> dropped(q, t)
			:: else -> mem[G(q, t)] = 1; ready(q, t)
			fi;
			qlock[q] = false
		}
	:: q < NQ && !IS_ONE(DEST(t) & ~skipped) ->
		/* bus1_send_stage(); what is doomed is not queued */
		do
		:: atomic {
			q < NQ && !qlock[q] ->
			if
			:: IS_TO_NODE(q, t) -> clock_now(n)
			:: else
			fi;
			if
			:: IS_TO_NODE(q, t) && death[0] != NONE && (OWNER_GONE(0) ||
			   (SEALED(death[0]) && TS(death[0]) < n)) ->
				tx_push(t, flr[q], x_);
				x_ = 0;
				dropped(q, t)
			:: else -> q_stage(q, t, 1)
			fi;
			n = 0;
			q++;
			NEXT_Q(t)
		   }
		:: q == NQ -> break
		od;
		tx_seal(t, old, n)
	:: q == NQ
	fi;
	atomic {
		clock_pass(TS(t));
		q = 0;
		skipped = 0;
		reveal(t);
		fin++
	}
}

/* NODES_DESTROY of the nodes in `set', all of which are of peer o. */
proctype Destroyer(byte d; byte set; byte o; bool release)
{
	byte n, p, m, old, c;
	bool expired;

	/* bus1_nodes_destroy_prepare() */
	atomic {
		!dmutex[o] ->
		enter(d);
		dmutex[o] = true;
		do
		:: n < NN && !(HAS(set, n) && death[n] != NONE && SEALED(death[n])) -> n++
		:: else -> break
		od
	};
	if
	:: n < NN ->
		/* ESTALE. It was passed before the mutex was free. */
		atomic {
			assert(TS(death[n]) < now);
			reveal(death[n]);
			goto out
		}
	:: else -> n = 0
	fi;
	do
	:: n < NN && HAS(set, n) -> n_stage(n, d, p, m); n++
	:: n < NN && !HAS(set, n) -> n++
	:: n == NN -> n = 0; break
	od;
	/* bus1_handle_drop(), of node 0, which is still there: it was not destroyed */
	atomic {
		if
		:: release -> h_drop(o, 0, user[H(o, 0)] - 1, expired)
		:: else
		fi
	};
	tx_seal(d, old, c);
	atomic { clock_pass(TS(d)) };
	do
	:: n < NN && HAS(set, n) -> n_settle(n, d, p, m); n++
	:: n < NN && !HAS(set, n) -> n++
	:: n == NN -> break
	od;
	if
	:: expired -> h_retire(o, 0)
	:: else
	fi;
	atomic { reveal(d) };
out:
	atomic { n = 0; expired = false; dmutex[o] = false; fin++ }
}

#ifdef WITH_BIRTH
bool birth_sem[NQ];		/* its writer */
bool late;			/* node 0 was born when the flush had happened */
#define DIES	(!late)
#else
#define DIES	true
#endif

/*
 * HANDLE_TRANSFER of a handle to node n to peer p: bus1_ioctl_transfer_to(). Its result
 * may not be told. WITH_BIRTH: it makes the node, and who has it then sends message 0.
 */
proctype Transfer(byte n; byte p)
{
	byte m, d, before;
	bool dead, again, sealed, gone;

	/* bus1_peer_transfer(), bus1_node_destroyed() */
	atomic {
		before = known;
		d = death[n];
		dead = (d != NONE && SEALED(d));
		assert(d == NONE || dead || !HAS(before, d))
	};
	if
	:: dead -> atomic { clock_pass(TS(d)); goto told_dead }
	:: else
	fi;
	h_prepare(p, n, m);
#ifdef V_TRANSFER_JOIN_FIRST
	h_join(p, n, NONE, m, d, dead, again, sealed, gone);
	if
	:: dead -> goto told_dead
	:: else
	fi;
	if
	:: atomic { h_commit(p, m) }
	:: h_undo(p, m, true, gone)
	fi;
	goto end;
#else
	/* The result is written, or not */
	if
	:: true
	:: h_undo(p, m, false, gone);
#ifdef WITH_BIRTH
		atomic { todo[0] = 0; todo[1] = 0; fin++ };
#endif
		goto end
	fi;
	h_join(p, n, NONE, m, d, dead, again, sealed, gone);
#ifdef WITH_BIRTH
	/* bus1_handle_commit_new() */
	atomic {
		!birth_sem[OWNER(n)] ->
		assert(!dead);
		has(OWNER(n), n);
		late = SEALED(NODE_DEATH)
	};
#endif
	atomic {
		if
		:: dead -> skip
		:: else ->
			assert(d == NONE || !HAS(before, d));
			h_commit(p, m);
#ifdef WITH_BIRTH
			run Sender(0);
#endif
			goto end
		fi
	};
#endif
told_dead:
	atomic { reveal(d) };
end:	atomic { m = 0; d = 0; before = 0; dead = false; fin++ }
}

/* HANDLE_RELEASE of a reference to node n that peer p has, if there is one. */
proctype Release(byte n; byte p)
{
	byte m;
	bool gone;

	atomic {
		if
		:: cur[T(p, n)] != NK && user[H(p, n * NK + cur[T(p, n)])] ->
			m = n * NK + cur[T(p, n)];
			h_drop(p, m, user[H(p, m)] - 1, gone)
		:: else
		fi
	};
	if
	:: gone -> h_retire(p, m)
	:: else
	fi;
	atomic { m = 0; gone = false; fin++ }
}

/* Of the handles of peer p, those to nodes of its own, or to those of others. */
inline h_drop_all(p, own, n, m, gone) {
	do
	:: atomic { n < NN && ((OWNER(n) == p) == own) ->
		gone = false;
		if
		:: cur[T(p, n)] != NK ->
			m = n * NK + cur[T(p, n)];
			if
			:: !own || death[n] != NONE -> h_drop(p, m, 0, gone)
			:: else -> assert(user[H(p, m)]); h_drop(p, m, 1, gone)
			fi
		:: else
		fi
	   };
	   if
	   :: gone -> h_retire(p, m); gone = false
	   :: else
	   fi;
	   atomic { m = 0; n++ }
	:: atomic { n < NN && ((OWNER(n) == p) != own) -> n++ }
	:: atomic { n == NN -> n = 0; break }
	od
}

#ifndef SEEDED
#define SEEDED	0			/* nodes that the seed carries */
#endif
/* FLUSH or disconnect of peer f: bus1_peer_flush(). */
proctype Flush(byte d; byte f)
{
	byte n, p, m, old, c, mine;
	bool gone;

	atomic { !dmutex[f] -> enter(d); dmutex[f] = true };
	atomic {
		!rmutex[f] ->
		rmutex[f] = true;
#if defined(WITH_BIRTH) && !defined(V_BIRTH_FREE)
		birth_sem[f] = true;
#endif
		/* bus1_destroy_all(), bus1_handles_collect() */
		do
		:: n < NN ->
			if
			:: OWNER(n) == f && cur[T(f, n)] != NK && death[n] == NONE &&
			   !HAS(SEEDED, n) ->
				mine = mine | BIT(n)
			:: else
			fi;
			n++
		:: else -> n = 0; break
		od
	};
	do
	:: n < NN && HAS(mine, n) -> n_stage(n, d, p, m); n++
	:: n < NN && !HAS(mine, n) -> n++
	:: n == NN -> n = 0; break
	od;
	h_drop_all(f, true, n, m, gone);
	tx_seal(d, old, c);
#ifdef V_BIRTH_NO_PASS
	atomic { birth_sem[f] = false };
#endif
	atomic {
		clock_pass(TS(d));
#ifdef WITH_BIRTH
		birth_sem[f] = false
#endif
	};
	do
	:: n < NN && HAS(mine, n) -> n_settle(n, d, p, m); n++
	:: n < NN && !HAS(mine, n) -> n++
	:: n == NN -> n = 0; break
	od;
	h_drop_all(f, false, n, m, gone);
	/* bus1_queue_flush(), bus1_queue_push_locked() */
	atomic {
		!qlock[f] ->
		qlock[f] = true;
#ifndef V_FLUSH_NO_FLOOR
		flr[f] = max(flr[f], TS(d));
#endif
		n = 0;
#ifdef V_FLUSH_NO_PUSH
		n = NTX;
#endif
		next_low(f, n, TS(d))
	};
	do
	:: atomic { n < NTX ->
		tx_push(n, TS(d), key[G(f, n)]);
		if
		:: SEALED(n) -> ready(f, n)
		:: else
		fi;
		n++;
		next_low(f, n, TS(d))
	   }
	:: atomic { n == NTX ->
		/* What is ready and below goes, but what an import is to be told of */
		n = 0;
		do
		:: n < NTX ->
			m = 0;
			do
			:: m < NN * NK ->
				if
				:: grp[G(f, n)] == READY && !STAMP_LT(d, n) &&
				   HAS(mem[G(f, n)], m) && IS_DEATH(n) && LIVE(H(f, m)) ->
					KEPT(H(f, m)) = true
				:: grp[G(f, n)] == READY && !STAMP_LT(d, n) &&
				   HAS(mem[G(f, n)], m) &&
				   !(IS_DEATH(n) && LIVE(H(f, m))) ->
					if
					:: !IS_DEATH(n) ->
#ifdef WITH_BIRTH
						/* Not what is for a node that lives */
						assert(death[0] != NONE);
#endif
						todo[f] = todo[f] & ~BIT(n)
					:: else
					fi;
					q_unlink(f, n, m)
				:: else
				fi;
				m++
			:: else -> m = 0; break
			od;
			n++
		:: else -> break
		od;
		n = 0;
		/* What is handed out from here on comes after it */
		if
		:: last[f] != NONE && last[f] != d -> edge(last[f], d)
		:: else
		fi;
		last[f] = d;
		qlock[f] = false;
		break
	   }
	od;
	atomic {
		reveal(d);
		mine = 0;
		rmutex[f] = false;
		dmutex[f] = false;
		fin++
	}
}

/*
 * poll() of peer q, again and again: it drops what is stale, one for each time that it
 * takes the lock, pushes nothing, and raises no floor. What it says is not modelled.
 */
proctype Poll(byte q)
{
	byte b, m, n;

end:	do
	:: atomic {
		!qlock[q] ->
		clock_now(n);
		b = 0;
		do
		:: b < NTX ->
			if
			:: grp[G(q, b)] == STAGED && SEALED(b) -> ready(q, b)
			:: else
			fi;
			b++
		:: else -> break
		od;
		choose(q, b, n);
		if
		:: b != NONE -> q_first_member(q, b, m)
		:: else
		fi;
		if
		:: b != NONE && MORTAL(q, b, m) && STALE(q, b, m) ->
			q_unlink(q, b, m);
			DROPPED(q, b, m)
		:: else
		fi;
		b = 0;
		m = 0;
		n = 0
	   }
	od
}

byte ends;

#ifndef FAILS
#define FAILS	0
#endif
#ifndef CNODE
#define CNODE	0			/* the node that messages carry */
#endif
proctype Receiver(byte q)
{
	byte b, m, n, i, ph, want, fails, h, d;
	bool final, dead, again, sealed, carries, failed, gone;

	do
	:: true ->
#ifdef WITH_FLUSH
		atomic { !rmutex[q] -> rmutex[q] = true };
#endif
		q_claim(q, b, m, n, i, ph, want);
		atomic {
			if
			:: b == NONE && final -> rmutex[q] = false; break
			:: b == NONE && !final -> rmutex[q] = false; goto next
			:: else ->
				final = false;
				carries = !IS_DEATH(b) && HAS(CARRIES, b)
			fi
		};
		if
		:: carries ->
			do
			:: true ->
				h_prepare(q, CNODE, h);
				h_join(q, CNODE, b, h, d, dead, again, sealed, gone);
				atomic {
					if
					:: again -> again = false
					:: else -> break
					fi
				}
			od
		:: else
		fi;
		/* The result is told, or not */
		atomic {
			if
			:: fails < FAILS -> failed = true
			:: true -> failed = false
			fi
		};
		if
		:: failed && carries && !dead -> h_undo(q, h, true, gone)
		:: else
		fi;
		if
		:: atomic { failed && !qlock[q] ->
			fails++;
			failed = false;
			q_unclaim(q, b, m)
		   }
		:: atomic { !failed ->
			if
#ifdef WITH_FLUSH
			:: IS_DEATH(b) && kept[H(q, m)]
#endif
			:: else -> handed_out(q, b)
			fi;
			if
			:: IS_DEATH(b) ->
				/* This is heard of once */
				assert(!told[H(q, m)]);
				told[H(q, m)] = 1
			:: else ->
				assert(HAS(todo[q], b));
				todo[q] = todo[q] & ~BIT(b);
				if
				:: IS_TO_NODE(q, b) && death[0] != b && DIES -> edge(b, NODE_DEATH)
				:: else
				fi
			fi;
			if
			:: carries && dead -> edge(d, b); reveal(d)
			:: carries && !dead ->
				edge(b, NODE_DEATH);
				assert(!told[H(q, h)]);
				h_commit(q, h)
			:: else
			fi
		   }
		fi;
		atomic { rmutex[q] = false; m = 0; h = 0; d = 0; dead = false; carries = false };
next:		atomic { b = 0; final = false }
	od;
	/* All is over: everything has come, and whoever has a handle was told */
	atomic {
		assert(!todo[q]);
		n = 0;
		do
		:: n < NN ->
			/* What was not told was undone */
			i = 0;
			do
			:: i < NK ->
				h = H(q, n * NK + i);
				assert(!imp[h] && !joi[h] && !owed[h]);
				assert(cur[T(q, n)] == i || (!user[h] && !link[h]));
				assert(!user[h] || death[n] == NONE || told[h]);
				i++
			:: else -> i = 0; h = 0; break
			od;
			n++
		:: else -> break
		od;
		n = 0; b = 0; final = false;
		ends++
	}
#ifdef REACH
	assert(!(ends == NQ && (REACH)))
#endif
}

/* A message, if it goes anywhere */
inline send(t) {
	if
	:: DEST(t) -> run Sender(t)
	:: else -> fin++
	fi
}

inline start() {
	i = 0;
	do
	:: i < NQ ->
		last[i] = NONE;
		if
		:: HAS(DEST_0, i) -> todo[i] = todo[i] | 1
		:: else
		fi;
		if
		:: HAS(DEST_1, i) -> todo[i] = todo[i] | 2
		:: else
		fi;
		run Receiver(i);
		i++
	:: else -> break
	od;
	i = 0
}
