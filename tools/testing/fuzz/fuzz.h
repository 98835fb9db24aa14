/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A coverage-guided fuzzer of /dev/bus1.
 *
 * A program is a list of calls. The arguments of a call are symbols: the peer in
 * slot 2, the third handle that this peer has got, the end of a page that nothing
 * follows. What a symbol stands for is decided when the call is made. So whatever a
 * mutation leaves of a program still makes sense to the kernel, mostly.
 *
 *	prog.c		what calls there are; making and changing programs
 *	text.c		programs as text, that people can read and write
 *	exec.c		running one program, and judging what the kernel answers
 *	state.c		what a program has, and what must be true of it
 *	cover.c		which code of the module a call has reached
 *	main.c		processes, corpus, watching, reporting
 */
#ifndef __BUS1_FUZZ_H
#define __BUS1_FUZZ_H

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof(*(a)))

#define MAX_CALLS	32	/* of a program */
#define MAX_FIXED	20	/* arguments of a call that are no list */
#define MAX_LIST	24	/* elements of all lists of a call */
#define N_LISTS		5
#define N_PEERS		6	/* slots for peers */
#define N_THREADS	3	/* that a program can have */
#define MAX_PROCS	16
#define MAX_CORPUS	16384

/* Programs */

enum {
	OP_OPEN,
	OP_CLOSE,
	OP_DUP,
	OP_DISCONNECT,
	OP_QUERY,
	OP_RESET,
	OP_RELEASE,
	OP_TRANSFER,
	OP_DESTROY,
	OP_SLICE,
	OP_SEND,
	OP_RECV,
	OP_CALL,
	OP_MMAP,
	OP_MUNMAP,
	OP_MREMAP,
	OP_MADVISE,
	OP_MPROTECT,
	OP_TOUCH,
	OP_POLL,
	OP_FILEOP,
	OP_FDINFO,
	OP_PASS,
	OP_FORK,
	OP_NONBLOCK,
	OP_BADIOCTL,
	OP_KILL,
	OP_SPIN,
	OP_RLIMIT,
	OP_N,
};

/* Places of arguments, where the code asks for them */
enum { OPEN_FLAGS = 1, OPEN_UID };
enum { DUP_TO = 1 };
enum { DISCONNECT_ARG = 1 };
enum { QUERY_FLAGS = 1, QUERY_MEM };
enum { RESET_FLAGS = 1, RESET_PFLAGS, RESET_LIMITS, RESET_MEM = 7 };
enum { RELEASE_ID = 1, RELEASE_MEM };
enum { TRANSFER_ID = 1, TRANSFER_TO, TRANSFER_FLAGS, TRANSFER_IN, TRANSFER_MEM };
enum { DESTROY_FLAGS = 1, DESTROY_N, DESTROY_AMEM, DESTROY_REP, DESTROY_MEM };
enum { SLICE_OFFSET = 1, SLICE_MEM };
enum {
	SEND_FLAGS = 1, SEND_ND, SEND_NV, SEND_NH, SEND_NF, SEND_DMEM, SEND_VMEM,
	SEND_HMEM, SEND_FMEM, SEND_ERRORS, SEND_REP, SEND_MEM,
};
enum { SEND_DESTS, SEND_VECS, SEND_HANDLES, SEND_FDS };
enum { RECV_FLAGS = 1, RECV_MAX, RECV_MEM, RECV_SLICE };
/* SEND_RECV: what SEND has comes first, at the same places */
enum {
	CALL_FLAGS = SEND_MEM + 1, CALL_NS, CALL_SMEM, CALL_ROOM, CALL_MMEM,
	CALL_MAX, CALL_TIME,
};
enum { CALL_SLICES = SEND_FDS + 1 };
enum { MMAP_LEN = 1, MMAP_PROT, MMAP_KIND };

/* Types of arguments */
enum {
	T_NONE,
	T_PEER,
	T_ID,
	T_TO,
	T_SLICE,
	T_FLAGS,
	T_RFLAGS,
	T_OFLAGS,
	T_UID,
	T_WORD,
	T_LIMIT,
	T_COUNT,
	T_REP,
	T_MEM,
	T_ERRORS,
	T_MAX,
	T_ROOM,
	T_TIME,
	T_VEC,
	T_FILE,
	T_LEN,
	T_HOW,
	T_CMD,
	T_N,
};

/* Memory of user space that a pointer can point to */
enum {
	MEM_OK,
	MEM_ODD,	/* not aligned */
	MEM_FIT,	/* ends where the mapping ends */
	MEM_CUT,	/* begins before the end of the mapping, ends behind it */
	MEM_NONE,	/* PROT_NONE */
	MEM_RO,
	MEM_FRESH,	/* no page there yet */
	MEM_NULL,
	MEM_KERNEL,
	MEM_WILD,	/* not canonical */
	MEM_POOL,	/* in the pool of a peer */
	MEM_N,
};

struct call {
	uint8_t op;
	uint8_t thread;
	uint8_t compat;			/* as a 32-bit program makes it */
	uint8_t fail;			/* n-th point to fail at, 0: none */
	uint8_t n[N_LISTS];
	uint16_t fixed[MAX_FIXED];
	uint16_t list[MAX_LIST];
};

struct prog {
	uint16_t n_calls;
	struct call calls[MAX_CALLS];
};

struct argdef {
	const char *name;
	uint8_t type;
};

struct opdef {
	const char *name;
	unsigned int weight;
	struct argdef fixed[MAX_FIXED + 1];
	struct argdef lists[N_LISTS + 1];
};

extern const struct opdef ops[OP_N];
extern const uint64_t vec_sizes[32];

struct rng {
	uint64_t s;
};

static inline uint32_t rnd(struct rng *r, uint32_t n)
{
	r->s ^= r->s >> 12;
	r->s ^= r->s << 25;
	r->s ^= r->s >> 27;
	return (uint64_t)(uint32_t)((r->s * 0x2545f4914f6cdd1dULL) >> 32) * n >> 32;
}

static inline bool one_in(struct rng *r, uint32_t n)
{
	return !rnd(r, n);
}

void prog_generate(struct prog *p, struct rng *r);
void prog_mutate(struct prog *p, const struct prog *other, struct rng *r);
void prog_remove(struct prog *p, unsigned int i);
bool prog_is_threaded(const struct prog *p);
uint16_t *call_list(struct call *c, unsigned int list);
unsigned int call_list_total(const struct call *c);

/* An edge is a value with a name; the others of a type are numbered */
#define EDGE	256

uint64_t sym_edge(unsigned int type, unsigned int v);
unsigned int sym_edges(unsigned int type);
int sym_print(unsigned int type, unsigned int v, char *buf, size_t size);
int sym_parse(unsigned int type, const char *text);

void prog_print(const struct prog *p, FILE *f);
/* 1: a program was read, 0: end of file, -1: an error, told on stderr */
int prog_parse(struct prog *p, FILE *f, const char *name, unsigned int *line);

/* Coverage */

struct cover {
	int fd;
	uint64_t *pcs;
};

struct signals {
	unsigned int n;
	uint32_t hash[512];
};

struct process;

bool cover_open(struct cover *cover);
void cover_enable(struct cover *cover);
void cover_begin(struct cover *cover);
void cover_end(struct cover *cover, struct process *p, unsigned int op, int error);
void cover_probe(struct process *p, const struct signals *want);
unsigned int cover_probe_end(struct process *p);

#define SIGNAL_BITS	22
#define PC_BITS		16

/* What the processes share */

/* One page each, so that it can be found in the memory of a machine that died */
struct box {
	char magic[16];
	uint32_t proc;
	uint32_t running;
	uint64_t number;
	struct prog prog;
} __attribute__((__aligned__(4096)));

#define BOX_MAGIC	"bus1-fuzz-box-1"
#define N_BOXES		16

struct corpus_entry {
	atomic_bool ready;
	bool is_new;
	_Atomic uint64_t cost;
	struct prog prog;
};

struct shared {
	struct box boxes[MAX_PROCS][N_BOXES];
	_Atomic uint64_t progs[MAX_PROCS];
	_Atomic uint64_t calls[MAX_PROCS];
	_Atomic uint64_t injected[MAX_PROCS];
	_Atomic uint64_t threaded[MAX_PROCS];
	_Atomic uint64_t sent[MAX_PROCS];	/* calls that succeeded */
	_Atomic uint64_t received[MAX_PROCS];
	atomic_uint parked;
	atomic_bool pause;
	atomic_bool stop;
	atomic_int findings;
	atomic_flag printing;
	atomic_uint n_corpus;
	atomic_uint n_pcs;
	atomic_uint n_signals;
	_Atomic uint64_t pcs[1 << PC_BITS];
	_Atomic uint64_t signals[(1 << SIGNAL_BITS) / 64];
	struct corpus_entry corpus[MAX_CORPUS];
};

extern struct shared *shared;

__attribute__((format(printf, 1, 2)))
void finding(const char *fmt, ...);

/* What a program has while it runs */

#define MAX_IDS		96
#define MAX_SLICES	64
#define MAX_STATES	40

struct known_id {
	uint64_t id;
	uint64_t refs;
};

struct known_slice {
	uint64_t offset;
	uint64_t size;
};

/* A peer, as far as this process knows what it must be like */
struct peer_state {
	unsigned int n_ids;
	unsigned int n_slices;
	bool vague;			/* others may have changed it */
	struct known_id ids[MAX_IDS];
	struct known_slice slices[MAX_SLICES];
};

struct slot {
	atomic_int fd;
	struct peer_state *state;
	_Atomic uintptr_t map;		/* address, and which length, in one word */
};

struct thread {
	struct process *process;
	unsigned int index;
	pthread_t pthread;
	int tid;
	struct cover cover;
	int fail_fd;
	bool failing;
	int epoll_fd;
	char *memory;			/* arrays and arguments of a call */
	char *bump;
	sigjmp_buf jump;
	volatile bool can_jump;
	atomic_uint go;			/* number of the program to run */
	atomic_uint done;
};

struct process {
	unsigned int index;
	struct rng rng;
	struct thread threads[N_THREADS];
	struct slot slots[N_PEERS];
	struct peer_state states[MAX_STATES];
	atomic_uint n_states;
	struct prog prog;
	bool threaded;
	bool tainted;			/* payloads may be anything */
	bool may_block;
	bool hidden;			/* a peer is somewhere else but in a slot */
	bool has_compat;
	bool is_um;
	uint64_t number;
	uint64_t cost;			/* of the last program, in some unit */
	uint64_t usual_cost;
	int base_fd;			/* all above belong to the program */
	int files[16];
	char *ro;
	char *none;
	char *payload;
	uint8_t pattern;
	uint32_t uid;
	bool use_mail;
	struct signals fresh;		/* seen by nobody before */
	bool probing;
	uint64_t want[1024];
	uint64_t got[1024];
};

#define MEMORY_SIZE	(1U << 20)	/* of a thread, for arrays */
#define PAYLOAD_SIZE	(1U << 20)
/* What a pool is mapped with: few pages, to be told to the CPU one by one */
#define MAP_LEN		(1U << 17)

extern _Thread_local struct thread *self;
extern int mail[2];

void state_reset(struct process *p);
void state_add_id(struct peer_state *s, uint64_t id);
void state_check_release(struct process *p, struct peer_state *s, uint64_t id, int r);
void state_add_slice(struct process *p, struct peer_state *s, uint64_t offset,
		     uint64_t size);
void state_check_slice(struct process *p, struct peer_state *s, uint64_t offset,
		       int r);
void state_flushed(struct peer_state *s);
void state_check_budgets(struct process *p);
bool state_user_is_empty(uint32_t uid, char *text, size_t size);

bool exec_init(struct process *p, unsigned int index);
void exec_run(struct process *p, const struct prog *prog);
bool safe_copy(void *to, const volatile void *from, size_t n);
bool errno_is_known(unsigned int op, int error);

#endif /* __BUS1_FUZZ_H */
