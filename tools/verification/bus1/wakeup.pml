/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Waiting for messages: NT threads in RECV on one peer, two senders. Nobody sleeps for
 * ever while there is something to receive.
 *
 * bus1_queue_commit_locked(), bus1_peer_wake()		Sender
 * bus1_ioctl_recv_wait(), wait_woken()			PEEK and SLEEP in Thread
 * bus1_ioctl_recv_wake()				wake()
 * bus1_recv_is_idle()					the first step of Thread
 * bus1_recv_prepare(), bus1_recv_put_back()		CLAIM and BACK in Thread
 *
 * __wake_up() walks the exclusive waiters until one was asleep, with the lock of the
 * wait queue held: one step. A thread that leaves because of a signal, or of a deadline,
 * which is the same here, hands the wake-up on (V_NO_HAND_MUTEX, V_NO_HAND_WAIT: it does
 * not); so does one whose RECV fails (V_NO_HAND_BACK). The queue is its lock and stamps:
 * order.pml has the rest of it. What was read of the clock under that lock before, queue->passed,
 * is as good as reading it: that is one of the values which clock_now() chooses from.
 */
#define NM	2			/* messages */
#ifndef NT
#define NT	2			/* threads */
#endif
#ifndef CAP
#define CAP	4
#endif
#ifndef FAILS
#define FAILS	1
#endif

byte now = 1;
byte ts[NM];				/* 0: not there, or received */
bool waits[NT];				/* on peer->waitq */
bool asleep[NT];			/* TASK_INTERRUPTIBLE, or about to be */
bool woken[NT];				/* WQ_FLAG_WOKEN */
bool rmutex;
bool leaves;				/* a signal for thread 0 */
bool given;				/* it came while it waited for recv_mutex */

/* bus1_peer_wake(): each is told, until one was asleep, which is taken off the queue */
inline wake() {
	atomic {
		w_ = 0;
		do
		:: w_ < NT ->
			if
			:: waits[w_] ->
				woken[w_] = true;
				if
				:: asleep[w_] ->
					asleep[w_] = false;
					waits[w_] = false;
					break
				:: else
				fi
			:: else
			fi;
			w_++
		:: else -> break
		od;
		w_ = 0
	}
}
hidden byte w_;

inline clock_now(n) {
	do
	:: now < CAP -> now++
	:: break
	od;
	n = now
}

proctype Sender(byte t)
{
	/* The lock of the queue and the clock: one step */
	atomic {
		do
		:: now < CAP -> now++
		:: break
		od;
		ts[t] = now
	};
#ifdef V_WAKE_FIRST
	wake();
#endif
	/* bus1_clock_pass(): what was received meanwhile has been passed */
	atomic {
		if
		:: ts[t] && now <= ts[t] -> now = ts[t] + 1
		:: else
		fi
	};
#ifndef V_WAKE_FIRST
	wake();
#endif
}

/* The lowest one, if that is in the past. */
inline lowest(b) {
	clock_now(n);
	b = 0;
	if
	:: ts[0] == 0 || (ts[1] && ts[1] < ts[0]) -> b = 1
	:: else
	fi;
	if
	:: ts[b] == 0 || ts[b] >= n -> b = NM
	:: else
	fi;
	n = 0
}

proctype Thread(byte me)
{
	byte b, n, fails, stamp;

claim:	/* bus1_recv_prepare(); but bus1_recv_is_idle() without recv_mutex */
	if
	:: ts[0] == 0 && ts[1] == 0 -> goto wait
	:: atomic { !rmutex -> rmutex = true }
	:: me == 0 && leaves ->
		/* mutex_lock_interruptible() */
		given = true;
#ifndef V_NO_HAND_MUTEX
		wake();
#endif
		goto end
	fi;
	atomic {
		lowest(b);
		if
		:: b < NM -> stamp = ts[b]; ts[b] = 0
		:: else -> rmutex = false
		fi
	};
	if
	:: b < NM && fails < FAILS ->
		/* bus1_recv_put_back() */
		atomic { ts[b] = stamp; stamp = 0; fails++; b = 0; rmutex = false };
#ifndef V_NO_HAND_BACK
		wake();
#endif
		goto end
	:: b < NM ->
		atomic { stamp = 0; b = 0; rmutex = false };
		goto end
	:: b == NM
	fi;
wait:	/* bus1_ioctl_recv_wait(): on the queue first, then look */
#ifdef V_LOOK_FIRST
	atomic { lowest(b) };
	if
	:: b < NM -> goto claim
	:: else
	fi;
	waits[me] = true;
	goto sleep;
#endif
	waits[me] = true;
	atomic { lowest(b) };
	if
	:: b < NM -> goto leave
	:: else
	fi;
	if
	:: me == 0 && leaves ->
		/* signal_pending() */
		atomic { waits[me] = false; woken[me] = false };
#ifndef V_NO_HAND_WAIT
		wake();
#endif
		goto end
	:: true
	fi;
sleep:	/* wait_woken(): asleep first, then look at the flag */
	atomic {
		asleep[me] = true;
		if
		:: woken[me] -> asleep[me] = false
		:: else
		fi
	};
	/* schedule(), until woken up or there is a signal; maybe there is nothing more */
endless: atomic { (!asleep[me] || (me == 0 && leaves)) -> asleep[me] = false; woken[me] = false };
	if
	:: !waits[me] -> goto claim
	:: else
	fi;
	/* Woken up by a signal, or before it slept */
	atomic { lowest(b) };
	if
	:: b == NM && me == 0 && leaves ->
		atomic { waits[me] = false; woken[me] = false };
#ifndef V_NO_HAND_WAIT
		wake();
#endif
		goto end
	:: else
	fi;
leave:	atomic { waits[me] = false; woken[me] = false };
	goto claim;
end:	atomic { b = 0 }
}

/* Once nothing else can move: whoever still sleeps has nothing to receive. */
proctype Monitor()
{
	timeout;
	atomic {
		w_ = 0;
		do
		:: w_ < NT -> assert(!(asleep[w_] && (ts[0] || ts[1]))); w_++
		:: else -> w_ = 0; break
		od
	};
#ifdef REACH
	assert(!(REACH));
#endif
}

init {
	byte i;

	atomic {
		do
		:: i < NT -> run Thread(i); i++
		:: else -> i = 0; break
		od;
		run Sender(0);
		run Sender(1);
		run Monitor();
#ifdef SIGNAL
		leaves = true
#endif
	}
}
