/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nodes of peer 0, handles to them, and their destruction: ipc/bus1/destroy.c,
 * handle.c, and what send.c, recv.c and peer.c do with them. One file, for many
 * scenarios: destroy.pml, transfer.pml, flush.pml say which processes run.
 *
 * bus1_send_check_dests()	the check in Sender
 * bus1_send_unicast()		commit in Sender
 * bus1_send_stage()		stage in Sender
 * bus1_nodes_destroy()		Destroyer
 * bus1_destroy_stage()		n_stage()
 * bus1_handle_drop()		drop in Destroyer
 * bus1_destroy_settle()	n_settle(), with bus1_node_purge()
 * bus1_handle_import_prepare()	h_prepare()
 * bus1_handle_import_join()	h_join(), with bus1_handle_notify_locked()
 * bus1_handle_import()		both of them, in Receiver
 * bus1_handle_import_abort()	h_abort(), with bus1_handle_retire()
 * bus1_peer_transfer()		Transfer
 * bus1_handle_release()	Release
 * bus1_peer_flush()		Flush, with bus1_destroy_all(), bus1_queue_flush()
 * bus1_node_is_stale(), bus1_handle_is_stale()		STALE()
 *
 * A handle that has left the table of its peer and one that takes its place are
 * two objects: NK of them for each peer and node.
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
#define LIVE(h)		(user[h] + imp[h])
#define MORTAL(q, b, m)	(IS_DEATH(b) || IS_TO_NODE(q, b))
#define STALE(q, b, m)	((IS_DEATH(b) && !LIVE(H(q, m))) || \
			 (IS_TO_NODE(q, b) && NODE_STALE(b)))
#define NODE_STALE(t)	(death[0] != NONE && (owner_gone[0] || \
			 (SEALED(death[0]) && STAMP_LT(death[0], t))))
#define DROPPED(q, b, m) dropped(q, b)
#define AT_LOCK		final = (fin == NFIN)
#include "queue.pml"

byte death[NN] = NONE;		/* node->death */
bool owner_gone[NN];
bool nlock[NN];			/* node->lock */
byte user[NQ * NN * NK];	/* handle->user_refs */
byte imp[NQ * NN * NK];		/* handle->imports */
byte link[NQ * NN * NK];	/* 0, in node->holders or node->notified */
bool isn[NQ * NN * NK];		/* handle->is_notified */
byte told[NQ * NN * NK];	/* NODE_DESTROY was received */
byte shown[NQ * NN * NK];	/* how often the ID was told, and is not taken back */
byte cur[NQ * NN] = NK;		/* the handle in the table, NK if none */
byte gen[NQ * NN];		/* the next one to be made */
bool dmutex;			/* destroy_mutex of peer 0 */
bool rmutex[NQ];		/* recv_mutex */
byte fin;			/* how many processes but receivers are through */

inline dropped(q, t) {
	if
	:: !IS_DEATH(t) ->
		/* If it had returned before the destruction was entered, it must come */
		assert(owner_gone[0] || death[0] == NONE || !HAS(atentry[death[0]], t));
		todo[q] = todo[q] & ~BIT(t)
	:: else
	fi
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
		:: !isn[H(p, m)] ->
			isn[H(p, m)] = true;
			if
			:: LIVE(H(p, m)) -> q_stage(p, d, BIT(m))
			:: else
			fi
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

/*
 * bus1_handle_import_join(). `b' is the message that carries the node, or NONE. What
 * is left in `dead' is whether the node is destroyed, before `b' if there is one;
 * `sealed' is what bus1_handle_notify_locked() returned.
 */
inline h_join(p, n, b, m, d, dead, sealed) {
	atomic {
		!nlock[n] ->
		d = death[n];
		dead = false;
		if
		:: d != NONE && b != NONE ->
			tx_push(d, TS(b), x_);
			x_ = 0;
			dead = SEALED(d) && STAMP_LT(d, b)
		:: else
		fi;
		if
		:: d == NONE && link[H(p, m)] == 0 -> link[H(p, m)] = 1
		:: else
		fi;
		nlock[n] = (d != NONE && !dead)
	};
	if
	:: d != NONE && !dead ->
		/* bus1_handle_notify_locked() */
#ifdef V_JOIN_UNLOCKED
		atomic { tx_push(d, flr[p], x_); x_ = 0; sealed = SEALED(d) };
#else
		atomic {
			!qlock[p] ->
			qlock[p] = true;
			tx_push(d, flr[p], x_);
			x_ = 0;
			sealed = SEALED(d)
		};
#endif
		atomic {
#ifdef V_JOIN_UNLOCKED
			!qlock[p];
#endif
			if
			:: (!sealed || b != NONE) && !isn[H(p, m)] ->
				/* bus1_queue_stage_locked() */
#ifndef V_JOIN_UNLOCKED
				tx_push(d, flr[p], x_);
				x_ = 0;
#endif
				isn[H(p, m)] = true;
				sealed = SEALED(d);
#ifdef V_JOIN_SEALED_DEAD
				dead = sealed && b == NONE;
#endif
				mem[G(p, d)] = mem[G(p, d)] | BIT(m);
				if
				:: SEALED(d) -> ready(p, d)
				:: !SEALED(d) && grp[G(p, d)] == STAGED
				:: !SEALED(d) && grp[G(p, d)] == IDLE ->
					grp[G(p, d)] = STAGED;
					key[G(p, d)] = TS(d)
				fi
			:: else -> dead = sealed && b == NONE
			fi;
			if
			:: !dead && link[H(p, m)] == 0 -> link[H(p, m)] = 2
			:: else
			fi;
			qlock[p] = false;
			nlock[n] = false
		}
	:: else
	fi;
	atomic {
		if
		:: dead || sealed -> clock_pass(TS(d))
		:: else
		fi
	};
	sealed = false
}

/* bus1_handle_import_abort() */
inline h_abort(p, m, gone) {
	atomic {
		imp[H(p, m)]--;
		gone = false;
		if
		:: !LIVE(H(p, m)) && cur[T(p, (m) / NK)] == (m) % NK ->
			cur[T(p, (m) / NK)] = NK;
			gone = true
		:: else
		fi
	};
	if
	:: gone -> h_retire(p, m); gone = false
	:: else
	fi
}

/* bus1_handle_import_commit() */
inline h_commit(p, m) {
	assert(imp[H(p, m)]);
	imp[H(p, m)]--;
	user[H(p, m)]++
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

	atomic { enter(t) };
	/* bus1_send_check_dests(), bus1_node_destroyed() */
	atomic {
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
			:: IS_TO_NODE(q, t) && death[0] != NONE && (owner_gone[0] ||
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

/* NODES_DESTROY of the nodes in `set'. */
proctype Destroyer(byte d; byte set; bool release)
{
	byte n, p, m, old, c;
	bool expired;

	atomic { enter(d) };
	/* bus1_nodes_destroy_prepare() */
	atomic {
		!dmutex ->
		dmutex = true;
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
	/* bus1_handle_drop(), of node 0 */
	atomic {
		if
		:: release ->
			user[H(0, 0)]--;
			if
			:: !user[H(0, 0)] -> owner_gone[0] = true
			:: else
			fi;
			if
			:: !LIVE(H(0, 0)) -> cur[T(0, 0)] = NK; expired = true
			:: else
			fi
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
	:: expired -> h_retire(0, 0)
	:: else
	fi;
	atomic { clock_pass(TS(d)); reveal(d) };
out:
	atomic { n = 0; expired = false; dmutex = false; fin++ }
}

/*
 * HANDLE_TRANSFER of a handle to node 0 to peer p: bus1_ioctl_transfer_to(). Its result
 * may not be told.
 */
proctype Transfer(byte p)
{
	byte m, d, before;
	bool dead, sealed, gone;

	atomic { before = known; d = NONE };
	/* bus1_peer_transfer(), bus1_node_destroyed() */
	atomic {
		if
		:: death[0] != NONE && SEALED(death[0]) -> d = death[0]; dead = true
		:: else -> assert(death[0] == NONE || !HAS(before, death[0]))
		fi
	};
	if
	:: dead -> atomic { clock_pass(TS(d)); goto told_dead }
	:: else
	fi;
	h_prepare(p, 0, m);
#ifdef V_TRANSFER_JOIN_FIRST
	h_join(p, 0, NONE, m, d, dead, sealed);
	if
	:: dead -> h_abort(p, m, gone); goto told_dead
	:: else
	fi;
	if
	:: atomic { shown[H(p, m)]++ }
	:: h_abort(p, m, gone); goto end
	fi;
	atomic { h_commit(p, m) };
	goto end;
#else
	/* The result is written, or not */
	if
	:: atomic { shown[H(p, m)]++ }
	:: h_abort(p, m, gone); goto end
	fi;
	h_join(p, 0, NONE, m, d, dead, sealed);
	if
	:: dead ->
		atomic { shown[H(p, m)]-- };
		h_abort(p, m, gone)
	:: else ->
		atomic {
			assert(d == NONE || !HAS(before, d));
			h_commit(p, m)
		};
		goto end
	fi;
#endif
told_dead:
	atomic { reveal(d) };
end:	atomic { m = 0; d = 0; before = 0; dead = false; fin++ }
}

/* HANDLE_RELEASE of whatever peer p has to node 0. */
proctype Release(byte p)
{
	byte m;
	bool gone;

	atomic {
		if
		:: cur[T(p, 0)] != NK && user[H(p, cur[T(p, 0)])] ->
			m = cur[T(p, 0)];
			user[H(p, m)]--;
			if
			:: !LIVE(H(p, m)) -> cur[T(p, 0)] = NK; gone = true
			:: else
			fi
		:: else
		fi
	};
	if
	:: gone -> h_retire(p, m)
	:: else
	fi;
	atomic { m = 0; gone = false; fin++ }
}

/* FLUSH or disconnect of peer 0: bus1_peer_flush(). */
proctype Flush(byte d)
{
	byte n, p, m, old, c;
	bool gone, mine;

	atomic { enter(d) };
	atomic { !dmutex -> dmutex = true };
	atomic { !rmutex[0] -> rmutex[0] = true; mine = (death[0] == NONE) };
	/* bus1_destroy_all() */
	if
	:: mine -> n_stage(0, d, p, m)
	:: else
	fi;
	/* bus1_handles_drop(): of the nodes of its own */
	atomic {
		gone = (cur[T(0, 0)] != NK);
		if
		:: gone ->
			m = cur[T(0, 0)];
			user[H(0, m)] = 0;
			owner_gone[0] = true;
			gone = !LIVE(H(0, m));
			if
			:: gone -> cur[T(0, 0)] = NK
			:: else
			fi
		:: else
		fi
	};
	if
	:: gone -> h_retire(0, m)
	:: else
	fi;
	m = 0;
	tx_seal(d, old, c);
	atomic { clock_pass(TS(d)) };
	if
	:: mine -> n_settle(0, d, p, m)
	:: else
	fi;
	/* bus1_queue_flush(), bus1_queue_push_locked() */
	atomic {
		!qlock[0] ->
		qlock[0] = true;
		flr[0] = max(flr[0], TS(d));
		n = 0;
		next_low(0, n, TS(d))
	};
	do
	:: atomic { n < NTX ->
		tx_push(n, TS(d), key[G(0, n)]);
		if
		:: SEALED(n) -> ready(0, n)
		:: else
		fi;
		n++;
		next_low(0, n, TS(d))
	   }
	:: atomic { n == NTX ->
		/* What is ready and below goes, but what an import is to be told of */
		n = 0;
		do
		:: n < NTX ->
			if
			:: grp[G(0, n)] == READY && !STAMP_LT(d, n) && !IS_DEATH(n) ->
				grp[G(0, n)] = IDLE;
				mem[G(0, n)] = 0;
				todo[0] = todo[0] & ~BIT(n)
			:: else
			fi;
			n++
		:: else -> break
		od;
		n = 0;
		/* What is handed out from here on comes after it */
		if
		:: last[0] != NONE && last[0] != d -> edge(last[0], d)
		:: else
		fi;
		last[0] = d;
		qlock[0] = false;
		break
	   }
	od;
	atomic {
		reveal(d);
		gone = false;
		mine = false;
		rmutex[0] = false;
		dmutex = false;
		fin++
	}
}

byte ends;

#ifndef FAILS
#define FAILS	0
#endif
proctype Receiver(byte q)
{
	byte b, m, n, i, ph, want, fails, h, d;
	bool again, final, dead, sealed, carries, failed, gone;

	do
	:: true ->
#ifdef WITH_FLUSH
		atomic { !rmutex[q] -> rmutex[q] = true };
#endif
		q_claim(q, b, m, n, i, ph, want, again);
		if
		:: atomic { b == NONE ->
			rmutex[q] = false;
			if
			:: final -> break
			:: else -> final = false
			fi
		   }
		:: atomic { b != NONE ->
			final = false;
			reveal(b);
			carries = !IS_DEATH(b) && HAS(CARRIES, b)
		   };
		   if
		   :: carries -> h_prepare(q, 0, h); h_join(q, 0, b, h, d, dead, sealed)
		   :: else
		   fi;
		   if
		   :: carries && dead -> h_abort(q, h, gone)
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
		   :: failed && carries && !dead -> h_abort(q, h, gone)
		   :: else
		   fi;
		   if
		   :: atomic { failed && !qlock[q] ->
			fails++;
			failed = false;
			q_unclaim(q, b, m)
		      }
		   :: atomic { !failed ->
			handed_out(q, b);
			if
			:: IS_DEATH(b) ->
				/* The ID is known, and this is heard of once */
				assert(shown[H(q, m)]);
				told[H(q, m)]++;
				assert(told[H(q, m)] == 1)
			:: else ->
				assert(HAS(todo[q], b));
				todo[q] = todo[q] & ~BIT(b);
				if
				:: IS_TO_NODE(q, b) && NODE_DEATH != b -> edge(b, NODE_DEATH)
				:: else
				fi
			fi;
			if
			:: carries && dead -> edge(d, b); reveal(d)
			:: carries && !dead ->
				edge(b, NODE_DEATH);
				assert(!told[H(q, h)]);
				shown[H(q, h)]++;
				h_commit(q, h)
			:: else
			fi
		      }
		   fi;
		   atomic {
			rmutex[q] = false;
			b = 0; m = 0; h = 0; d = 0;
			dead = false; carries = false
		   }
		fi
	od;
	/* All is over: everything has come, and whoever has a handle was told */
	atomic {
		assert(!todo[q]);
		n = 0;
		do
		:: n < NN ->
			/* What was not told was undone */
			assert(cur[T(q, n)] == NK || !imp[H(q, n * NK + cur[T(q, n)])]);
			if
			:: cur[T(q, n)] != NK && user[H(q, n * NK + cur[T(q, n)])] ->
				assert(death[n] == NONE || told[H(q, n * NK + cur[T(q, n)])])
			:: else
			fi;
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

/* Who has handles at the start: peer p to node n. */
inline has(p, n) {
	shown[H(p, n * NK)] = 1;
	user[H(p, n * NK)] = 1;
	link[H(p, n * NK)] = 1;
	cur[T(p, n)] = 0;
	gen[T(p, n)] = 1
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
